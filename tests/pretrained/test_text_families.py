"""Every text family against outputs of `transformers` that were recorded with the weights (tests/pretrained/golden)."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.models.language import greedy, logits
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.exporting import export_text_model
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.tensor_files import read_headers

from .published import GOLDEN, TEXT_FAMILIES

LOGITS = 1e-4
ONE = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_logits_and_cached_greedy_decoding(family):
    expected = np.load(GOLDEN / family / "expected.npz")
    model = load_model(GOLDEN / family, ONE)
    ids = expected["ids"].astype(np.int32)
    np.testing.assert_allclose(logits(model.config, model.params, ids), expected["logits"], atol=LOGITS)
    said = greedy(model.config, model.params, ids, expected["said"].shape[1])
    np.testing.assert_array_equal(said, expected["said"])


slow = pytest.mark.skipif(os.environ.get("OMNI_JAX_SLOW") != "1", reason="compiles a minute long: set OMNI_JAX_SLOW=1")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "qwen3_moe" else slow) for name in TEXT_FAMILIES]
)
def test_a_sharded_import_decodes_the_same_tokens(family):
    mesh = make_mesh(MeshConfig(fsdp=2, expert=2, tensor=2))
    expected = np.load(GOLDEN / family / "expected.npz")
    model = load_model(GOLDEN / family, mesh)
    if family == "qwen3_moe":
        gate = model.params["transformer"]["sparse"]["moe"]["gate"]
        assert {shard.data.shape for shard in gate.addressable_shards} == {(1, 2, 8, 6)}
    with jax.set_mesh(mesh):
        said = greedy(model.config, model.params, expected["ids"].astype(np.int32), expected["said"].shape[1])
    np.testing.assert_array_equal(said, expected["said"])


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_out_is_what_came_in(family, tmp_path):
    """Names, shapes and every bit; also when the files are cut into shards."""
    model = load_model(GOLDEN / family, ONE)
    out = export_text_model(model.config, model.params, family, tmp_path / "out", shard_bytes=12_000)
    assert (out / "model.safetensors.index.json").is_file()
    before, after = read_headers(GOLDEN / family), read_headers(out)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.read().tobytes() == after[name].read().tobytes(), name
        assert tensor.shape == after[name].shape, name
    again = load_model(out, ONE)
    assert again.config == model.config


def test_bfloat16_goes_through_float32_and_back(tmp_path):
    model = load_model(GOLDEN / "qwen2", ONE)
    first = export_text_model(model.config, model.params, "qwen2", tmp_path / "a", "bfloat16")
    loaded = load_model(first, ONE)
    assert loaded.params["text_embedding"].dtype == np.float32
    second = export_text_model(loaded.config, loaded.params, "qwen2", tmp_path / "b", "bfloat16")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert json.loads((second / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_names_without_their_prefix_are_read(tmp_path):
    """The GPT-2 files that were first published have no `transformer.` before their names."""
    shutil.copytree(GOLDEN / "gpt2", tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"transformer.', b'"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert load_model(tmp_path / "gpt2", ONE).report == load_model(GOLDEN / "gpt2", ONE).report
