"""A published codec as the codec of an assembled model."""

import dataclasses

import jax
import numpy as np
import pytest

from omni_jax.checkpoint import load_codec
from omni_jax.codec_config import MIMI, CodecConfig
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.models import codec
from omni_jax.pretrained.assembling import assembled_config
from omni_jax.pretrained.codec_part import read_codec_part, write_codec_part
from omni_jax.pretrained.codec_tensors import abstract_params
from omni_jax.pretrained.codecs import save_codec_directory
from tests.models.tiny import MODEL

CODES = {"num_codebooks": 5, "codebook_size": 16, "codebook_dim": 4}
SMALL = dataclasses.replace(
    MIMI, num_filters=2, ratios=(960,), latent_dim=8, num_heads=2, mlp_dim=8, transformer_layers=1, **CODES
)


def test_a_published_codec_becomes_a_workdir(tmp_path):
    """Three of Mimi's five codebooks, whose codes are the whole codec's first three."""
    whole = jax.jit(codec.init_params, static_argnums=0)(SMALL, jax.random.key(1))
    save_codec_directory(tmp_path / "mimi", SMALL, whole)
    ours = CodecConfig(num_codebooks=MODEL.num_codebooks, codebook_size=MODEL.codebook_size)
    part = read_codec_part(tmp_path / "mimi", MODEL.num_codebooks)
    config = assembled_config(Config(model=MODEL, codec=ours), {}, part)
    assert (config.model.num_codebooks, config.model.codebook_size) == (3, 16)
    write_codec_part(tmp_path / "codec", part, config)
    saved, params = load_codec(tmp_path / "codec")
    assert saved.codec == part.config
    wav = 0.1 * np.random.default_rng(0).standard_normal((1, 3 * 1920)).astype(np.float32)
    codes = codec.encode_codes(saved.codec, params, wav)
    np.testing.assert_array_equal(codes, codec.encode_codes(SMALL, whole, wav)[..., :3])
    trained = read_codec_part(tmp_path / "codec", 3)
    assert trained.params is None and trained.config == part.config


def test_a_codec_of_other_frames_is_refused(tmp_path):
    fast = dataclasses.replace(SMALL, ratios=(480,))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_params(fast))
    save_codec_directory(tmp_path / "mimi", fast, params)
    with pytest.raises(UserError, match="25 frames a second at 24000 Hz, but the model"):
        read_codec_part(tmp_path / "mimi", 3)
