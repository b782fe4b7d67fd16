"""Own sources bring their codes along: of the codec's cache they need only what silence is."""

import numpy as np
from streaming.tiny import CODEC, MODEL, weights

from omni_jax.config import Config, DataConfig
from omni_jax.training.speech_codes import load_or_build_code_cache


def test_own_sources_need_no_corpus(tmp_path):
    data = DataConfig(corpus="nowhere", sources={"mine": "folder:nowhere"})
    cache = load_or_build_code_cache(Config(model=MODEL, codec=CODEC, data=data), weights()[1], tmp_path)
    assert not cache.clips and cache.silence.shape == (CODEC.num_codebooks,)
    assert np.all((cache.silence >= 0) & (cache.silence < CODEC.codebook_size))
