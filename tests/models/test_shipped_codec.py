"""The codec in data/voice: small enough for git, and held-out voices stay intelligible through it."""

from pathlib import Path

import jax
import numpy as np

from omni_jax.checkpoint import load_codec
from omni_jax.evals.codec_folder import distances, there_and_back
from omni_jax.input_pipeline.corpus import Source, load_speech
from omni_jax.types import FRAME_SPEECH_SAMPLES, SPEECH_SAMPLE_RATE_HZ

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "voice" / "codec"


def test_it_is_small():
    config, params = load_codec(SHIPPED)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 2_500_000
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 5_000_000
    bits = config.codec.num_codebooks * np.log2(config.codec.codebook_size)
    assert bits * SPEECH_SAMPLE_RATE_HZ / FRAME_SPEECH_SAMPLES <= 1_100  # a second


def test_held_out_voices_come_back():
    config, params = load_codec(SHIPPED)
    clips = load_speech(Source(str(ROOT / "data" / "corpus" / "picture_book")), "test", SPEECH_SAMPLE_RATE_HZ)
    one_each = {clip.voice: clip.wav() for clip in clips if clip.role == "user" and clip.duration_ms > 1000}
    assert len(one_each) == 6
    through = [(wav, there_and_back(config.codec, params, wav)[0]) for wav in one_each.values()]
    mels = [distances(wav, fake, SPEECH_SAMPLE_RATE_HZ)[0] for wav, fake in through]
    silence = [distances(wav, np.zeros_like(wav), SPEECH_SAMPLE_RATE_HZ)[0] for wav in one_each.values()]
    assert np.mean(mels) < 0.3 < np.mean(silence)
