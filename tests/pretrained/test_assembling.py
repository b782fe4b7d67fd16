"""An omni model around published parts, and parts of workdirs as a start."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.sizes import model_of
from omni_jax.checkpoint import load_params
from omni_jax.config import Config, MeshConfig
from omni_jax.errors import ConfigError, UserError
from omni_jax.input_pipeline.features import patches
from omni_jax.models import omni
from omni_jax.models.binding import bind
from omni_jax.models.encoders.tower import VisionTower
from omni_jax.models.language import logits
from omni_jax.models.omni_streaming import init_stream
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.__main__ import main
from omni_jax.pretrained.assembling import NUM_CONTROL, assemble
from omni_jax.pretrained.exporting import export_text_model
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.tensor_files import read_headers
from omni_jax.training.starting_point import parse_parts, take_parts
from omni_jax.types import Control
from tests.models.tiny import MODEL, dialogue

from .published import GOLDEN

SAME, ENCODED = 1e-5, 1e-4
ONE = make_mesh(MeshConfig(), jax.devices()[:1])


PARTS = {"text": "qwen3", "audio": "whisper", "vision": "clip"}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    out = tmp_path_factory.mktemp("assembled") / "out"
    parts = {kind: GOLDEN / name for kind, name in PARTS.items()}
    return assemble(Config(model=MODEL, codec=_codec(), seed=4), parts, out, ONE)


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


def test_whisper_hears_the_clips_of_a_pool_apart(assembled):
    """A whole clip as the published encoder alone hears it, and two shorter ones behind each other like each alone."""
    config, params = load_params(assembled)
    expected = np.load(GOLDEN / "whisper" / "expected.npz")
    hear = jax.jit(lambda mel, segments: omni.bind(config.model, params).audio_encoder(mel, segments))
    whole = hear(expected["mel"], np.ones((2, 3), np.int32))
    np.testing.assert_allclose(whole, expected["hidden"].reshape(2, 3, -1), atol=ENCODED)
    first, second = expected["mel"][0, :16], expected["mel"][1, :8]
    pools = [(first, second), (first, np.ones((8, 10), np.float32)), (second, np.ones((16, 10), np.float32))]
    mel = np.stack([np.concatenate(pool) for pool in pools])
    packed = hear(mel, np.asarray([[1, 1, 2], [1, 1, 0], [1, 0, 0]], np.int32))
    np.testing.assert_allclose(packed[0, :2], packed[1, :2], atol=ENCODED)
    np.testing.assert_allclose(packed[0, 2], packed[2, 0], atol=ENCODED)


def test_published_eyes_see_whole_pictures(assembled):
    """12 x 12 pixels are what the encoder has learned; the model's pictures are 16 x 16, for pooling by 2 x 2."""
    config, params = load_params(assembled)
    vision = config.model.vision
    assert (vision.image_size, vision.patch_size, vision.num_patches) == (16, 4, 16)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    pool, grid = (np.concatenate(parts)[None] for parts in zip(*(patches(image, vision) for image in images)))
    see = jax.jit(lambda *pools: omni.bind(config.model, params).vision_encoder(*pools))
    seen = see(pool, grid, np.repeat(np.asarray([[3, 5]], np.int32), 16, axis=1))
    tower = load_model(GOLDEN / "clip", ONE)
    alone = jax.jit(lambda *pools: bind(VisionTower, tower.config, tower.params)(*pools))
    expected = alone(
        pool.reshape(2, 16, -1), grid.reshape(2, 16, 2), np.full((2, 16, 2), 4), np.ones((2, 16), np.int32)
    )
    np.testing.assert_allclose(seen[0].reshape(2, 16, -1), expected, atol=ENCODED)


def test_an_assembled_model_hears_sees_and_speaks(assembled):
    config, params = load_params(assembled)
    batch = dialogue(frames=3, prefix=2, cfg=config.model)
    output = jax.jit(omni.apply, static_argnums=0)(config.model, params, batch)
    assert all(np.isfinite(part).all() for part in jax.tree.leaves(output))
    assert output.ctc_logits.shape == (1, 3 * config.model.audio.ctc_subframes, config.model.audio.ctc_vocab)
    with pytest.raises(ConfigError, match="hears whole clips"):
        init_stream(config.model, params, 1, 8, 4)
    with pytest.raises(ConfigError, match="stage duplex with a published audio encoder"):
        dataclasses.replace(config, stage="duplex")


def test_the_model_file_gives_stages_this_model(assembled):
    assert model_of(str(assembled / "model.json"), "align") == load_params(assembled)[0].model
    with pytest.raises(ConfigError, match="not readable as a model's configuration"):
        model_of(str(assembled / "nothing.json"), "align")


def test_an_export_gives_the_published_tokens_their_ids_back(assembled, tmp_path):
    config, params = load_params(assembled)
    out = export_text_model(config.model, params, "qwen3", tmp_path / "out", workdir=assembled)
    before, after = read_headers(GOLDEN / "qwen3"), read_headers(out)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        old, new = tensor.read(), after[name].read()
        assert old.tobytes() == new[: len(old)].tobytes(), name
    assert json.loads((out / "control_tokens.json").read_text())["<listen>"] == 64 + Control.LISTEN


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
    with pytest.raises(UserError, match="whisper is for --audio"):
        main([*arguments[:2], f"--text={GOLDEN / 'whisper'}", f"--out={tmp_path / 'other'}"])
    assert not (tmp_path / "other").exists()
