"""Whisper's, CLIP's and SigLIP's encoders against hidden states that `transformers` computed with the same weights."""

import jax
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.errors import UserError
from omni_jax.models import binding
from omni_jax.models.encoders.tower import VisionTower, WhisperEncoder
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.exporting import tensor_sources
from omni_jax.pretrained.families import family_of, read_config
from omni_jax.pretrained.importing import import_text_model, load_model
from omni_jax.pretrained.tensor_files import read_headers

from .published import GOLDEN, VISION_FAMILIES

HIDDEN = 1e-4
ONE = make_mesh(MeshConfig(), jax.devices()[:1])


def see(model, patches, rows, columns, segments=None):
    count, length = patches.shape[:2]
    grid = np.stack(np.divmod(np.arange(length), columns), -1).astype(np.int32)
    positions = np.broadcast_to(grid, (count, length, 2))
    sizes = np.broadcast_to(np.asarray([rows, columns], np.int32), positions.shape)
    ids = np.ones((count, length), np.int32) if segments is None else segments
    tower = binding.bind(VisionTower, model.config, model.params)
    return tower(patches, positions, sizes, ids, pictures=int(ids.max()))


def test_whisper():
    expected = np.load(GOLDEN / "whisper" / "expected.npz")
    model = load_model(GOLDEN / "whisper", ONE)
    hidden = binding.bind(WhisperEncoder, model.config, model.params)(expected["mel"])
    np.testing.assert_allclose(hidden, expected["hidden"], atol=HIDDEN)
    assert all(name.startswith("decoder.") for name in model.report.unused)


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_vision(name):
    expected = np.load(GOLDEN / name / "expected.npz")
    model = load_model(GOLDEN / name, ONE)
    np.testing.assert_allclose(see(model, expected["patches"], 3, 3), expected["hidden"], atol=HIDDEN)


def test_pictures_of_a_pool_do_not_see_each_other():
    """CLIP, whose class tokens are one a picture, with two pictures behind each other and padding."""
    expected = np.load(GOLDEN / "clip" / "expected.npz")
    model = load_model(GOLDEN / "clip", ONE)
    count = expected["patches"].shape[1]
    patches = np.concatenate([*expected["patches"], np.ones((2, expected["patches"].shape[2]), np.float32)])
    grid = np.concatenate([np.stack(np.divmod(np.arange(count), 3), -1)] * 2 + [np.zeros((2, 2), int)])
    segments = np.asarray([1] * count + [2] * count + [0, 0], np.int32)
    tower = binding.bind(VisionTower, model.config, model.params)
    sizes = np.full((1, len(segments), 2), 3, np.int32)
    hidden = tower(patches[None], grid[None].astype(np.int32), sizes, segments[None], pictures=2)[0]
    np.testing.assert_allclose(hidden[: 2 * count].reshape(2, count, -1), expected["hidden"], atol=HIDDEN)


@pytest.mark.parametrize("name", ["whisper", *VISION_FAMILIES])
def test_the_encoders_weights_go_back_bit_for_bit(name):
    family = family_of(read_config(GOLDEN / name))
    model, published = load_model(GOLDEN / name, ONE), read_headers(GOLDEN / name)
    sources = tensor_sources(family, model.config, model.params, np.dtype(np.float32))
    stripped = {name.removeprefix(family.prefix): source for name, source in sources.items()}
    assert sorted(stripped) == list(model.report.mapped)
    for tensor, source in stripped.items():
        assert source.make().tobytes() == published[tensor].read().tobytes(), tensor
    assert family.read_config(family.write_config(model.config)) == model.config


def test_an_encoder_is_no_model_to_train(tmp_path):
    with pytest.raises(UserError, match="siglip_vision_model is an encoder, no model to train alone"):
        import_text_model(GOLDEN / "siglip", tmp_path / "out", ONE)
