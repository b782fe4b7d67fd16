"""An omni model around a published text model, and parts of workdirs as a start."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.sizes import model_of
from omni_jax.checkpoint import load_params
from omni_jax.config import Config, ConfigError, MeshConfig
from omni_jax.errors import UserError
from omni_jax.models import omni
from omni_jax.models.language import logits
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.__main__ import main
from omni_jax.pretrained.assembling import NUM_CONTROL, assemble
from omni_jax.training.starting_point import parse_parts, take_parts
from tests.models.tiny import MODEL, dialogue

from .published import GOLDEN

SAME = 1e-5
ONE = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    out = tmp_path_factory.mktemp("assembled") / "out"
    return assemble(Config(model=MODEL, codec=_codec(), seed=4), GOLDEN / "qwen3", out, ONE)


def _codec():
    return dataclasses.replace(Config().codec, num_codebooks=MODEL.num_codebooks, codebook_size=MODEL.codebook_size)


def test_old_logits_on_text_are_unchanged(assembled):
    config, params = load_params(assembled)
    expected = np.load(GOLDEN / "qwen3" / "expected.npz")
    batch = dialogue(frames=0, prefix=7, patches=0, rows=2, cfg=config.model)
    text = (expected["ids"] + NUM_CONTROL).astype(np.int32)
    batch = batch._replace(timeline=batch.timeline._replace(text=text), speech_index=batch.speech_index[:, :0])
    hidden = omni.apply(config.model, params, batch).hidden
    said = omni.text_logits(config.model, params, hidden)
    np.testing.assert_allclose(said[..., NUM_CONTROL:], expected["logits"], atol=SAME)
    assert said.shape[-1] == NUM_CONTROL + expected["logits"].shape[-1]
    head = np.asarray(params["text_head"][:, :NUM_CONTROL])
    assert len(np.unique(head[0])) == NUM_CONTROL  # the control tokens can be told apart


def test_the_model_file_gives_stages_this_model(assembled):
    assert model_of(str(assembled / "model.json"), "align") == load_params(assembled)[0].model
    with pytest.raises(ConfigError, match="not readable as a model's configuration"):
        model_of(str(assembled / "nothing.json"), "align")


def test_parts_by_path_pattern(assembled):
    config, whole = load_params(assembled)
    fresh = jax.tree.map(jnp.zeros_like, whole)
    started = take_parts(fresh, parse_parts(f"transformer/*={assembled}, text_*={assembled}"))
    for name, tree in started.items():
        same = whole if name.startswith(("transformer", "text_")) else fresh
        jax.tree.map(np.testing.assert_array_equal, tree, same[name])
    language = {name: started[name] for name in ("text_embedding", "transformer", "text_head")}
    assert np.abs(logits(config.model, language, jnp.zeros((1, 3), jnp.int32))).max() > 0


@pytest.mark.parametrize(
    ("init_from", "message"),
    [
        ("decoder/*={}", "'decoder/.' matches no parameter first; the groups are"),
        ("text_head=", "want one WORKDIR, or PATTERN=WORKDIR"),
        ("extra={}", "has no extra: narrow the pattern"),
        ("text_embedding={}", r"text_embedding has shape \(84, 16\) in .*, the model wants \(3, 16\)"),
    ],
)
def test_parts_that_do_not_fit(assembled, init_from, message):
    params = {"text_embedding": jnp.zeros((3, 16)), "text_head": jnp.zeros((16, 3)), "extra": jnp.zeros(2)}
    with pytest.raises(ConfigError, match=message):
        take_parts(params, parse_parts(init_from.format(assembled)))


def test_the_command(assembled, tmp_path, capsys):
    out, config = tmp_path / "out", f"--config=configs/align.py:{assembled}/model.json"
    arguments = ["assemble", config, f"--text={GOLDEN / 'mixtral'}", f"--out={out}", "--mesh=fsdp=2,data=4"]
    assert main(arguments) == 0
    assert f"--config=configs/align.py:{out}/model.json" in capsys.readouterr().out
    assert json.loads((out / "model.json").read_text())["vocab_size"] == NUM_CONTROL + 64
    with pytest.raises(UserError, match="exists already"):
        main(arguments)
    with pytest.raises(UserError, match="whisper is an encoder, want a text model"):
        main([*arguments[:2], f"--text={GOLDEN / 'whisper'}", f"--out={tmp_path / 'other'}"])
    assert not (tmp_path / "other").exists()
