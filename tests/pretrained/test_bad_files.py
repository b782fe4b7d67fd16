"""What is wrong with a published checkpoint is said in one line, before anything is read or written."""

import json
import pickle
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from omni_jax.config import Config, MeshConfig
from omni_jax.errors import UserError
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.__main__ import main
from omni_jax.pretrained.assembling import assemble
from omni_jax.pretrained.exporting import export_text_model
from omni_jax.pretrained.importing import import_text_model, load_model

from .published import GOLDEN

ONE = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture
def copy(tmp_path):
    def make(family="qwen3"):
        return shutil.copytree(GOLDEN / family, tmp_path / family)

    return make


def change_config(directory, **values):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(directory, tmp_path, message, **flags):
    with pytest.raises(UserError, match=message):
        import_text_model(directory, tmp_path / "out", ONE, **flags)
    assert {path.name for path in tmp_path.iterdir()} <= {directory.name}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "model_type='mamba' is not known here, want one of gpt2"),
        ({"model_type": 3}, "model_type=3"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported, want 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn'"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers='two', want a positive integer"),
        ({"vocab_size": 65}, r"embed_tokens.weight has shape \(64, 16\), config.json means \(65, 16\)"),
        ({"num_hidden_layers": 3}, "model.layers.2.* is not in the files"),
        ({"num_hidden_layers": 1}, "nothing takes model.layers.1.*--ignore=PATTERN"),
        ({"num_key_value_heads": 3}, "num_heads=4 must be a multiple of num_kv_heads=3"),
    ],
)
def test_a_config_that_does_not_fit(copy, tmp_path, values, message):
    directory = copy()
    change_config(directory, **values)
    refused(directory, tmp_path, message)


def test_leftovers_may_be_named(copy):
    directory = copy()
    change_config(directory, num_hidden_layers=1)
    report = load_model(directory, ONE, ignore=["model.layers.1.*"]).report
    assert len(report.unused) == 11
    assert report.lines()[0] == "mapped 14, unused 11, missing 0"


def test_a_missing_shard(copy, tmp_path):
    directory = copy()
    (directory / "model-00002-of-00003.safetensors").unlink()
    refused(directory, tmp_path, "model-00002-of-00003.safetensors: this shard is missing")


def test_a_shard_outside_the_directory(copy, tmp_path):
    directory = copy()
    index = directory / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))
    refused(directory, tmp_path, "lies outside the directory")


@pytest.mark.parametrize("keep", [3, 500, 20_000])
def test_a_truncated_file(copy, tmp_path, keep):
    directory = copy("gpt2")
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(directory, tmp_path, "model.safetensors.*truncated.*copy it again")


def test_a_header_that_is_no_header(copy, tmp_path):
    directory = copy("gpt2")
    for header in (b"nope", b"[" * 200_000, b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}'):
        (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        refused(directory, tmp_path, "damaged safetensors header")


def test_a_pickle_is_not_opened(copy, tmp_path):
    directory, opened = copy("gpt2"), tmp_path / "opened"

    class Payload:
        def __reduce__(self):
            return Path.touch, (opened,)

    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    refused(directory, tmp_path, "pytorch_model.bin: a pickle can run code")
    assert not opened.exists()


@pytest.mark.parametrize(("kind", "name"), [("text", "qwen2"), ("audio", "whisper"), ("vision", "siglip")])
def test_a_damaged_part_is_not_assembled(copy, tmp_path, kind, name):
    directory, out = copy(name), tmp_path / "out"
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        assemble(Config(), {kind: directory}, out, ONE)
    path.rename(directory / "pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle can run code"):
        assemble(Config(), {kind: directory}, out, ONE)
    change_config(directory, model_type="mamba")
    with pytest.raises(UserError, match="model_type='mamba' is not known here"):
        assemble(Config(), {kind: directory}, out, ONE)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_family_that_cannot_say_it(tmp_path):
    model = load_model(GOLDEN / "qwen3", ONE)
    with pytest.raises(UserError, match="--family=llama: cannot express this model's qk_norm"):
        export_text_model(model.config, model.params, "llama", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_commands_import_and_export(tmp_path, capsys):
    workdir, out = tmp_path / "in", tmp_path / "out"
    assert main(["import", f"--from={GOLDEN / 'qwen3'}", f"--out={workdir}", "--mesh=fsdp=8"]) == 0
    assert "mapped 25, unused 0, missing 0" in capsys.readouterr().out
    assert main(["export", f"--workdir={workdir}", "--family=qwen3", f"--out={out}"]) == 0
    published = json.loads((GOLDEN / "qwen3" / "config.json").read_text())
    written = json.loads((out / "config.json").read_text())
    assert {key: written[key] for key in published} == published
    ours, theirs = load_model(out, ONE).params, load_model(GOLDEN / "qwen3", ONE).params
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    with pytest.raises(UserError, match="exists already"):
        main(["import", f"--from={GOLDEN / 'qwen3'}", f"--out={workdir}"])
    with pytest.raises(UserError, match="--mesh=fsdp: want axes with sizes"):
        main(["import", f"--from={GOLDEN / 'qwen3'}", f"--out={tmp_path / 'x'}", "--mesh=fsdp"])
