import numpy as np
import pytest

from omni_jax.input_pipeline.pauses import LONGEST_PAUSE_MS, cut_samples, excess_silence, moved_ms

RATE_HZ = 24_000


def two_sounds(pause_ms: int) -> np.ndarray:
    sound = (8000 * np.sin(np.arange(300 * 24) / 7)).astype(np.int16)
    edge = np.zeros(100 * 24, np.int16)
    return np.concatenate([edge, sound, np.zeros(pause_ms * 24, np.int16), sound, edge])


@pytest.mark.parametrize("pause_ms", [400, 560, 1000])
def test_a_long_pause_is_shortened_and_what_follows_moves_along(pause_ms):
    samples = two_sounds(pause_ms)
    cuts = excess_silence(samples, RATE_HZ)
    short = cut_samples(samples, RATE_HZ, cuts)
    np.testing.assert_array_equal(short, two_sounds(LONGEST_PAUSE_MS))
    assert moved_ms(400, cuts) == 400  # the end of the first sound
    assert moved_ms(400 + pause_ms, cuts) == 400 + LONGEST_PAUSE_MS
    assert moved_ms(len(samples) // 24, cuts) == len(short) // 24


def test_short_pauses_and_silence_at_the_ends_stay():
    samples = np.concatenate([np.zeros(24_000, np.int16), two_sounds(LONGEST_PAUSE_MS), np.zeros(24_000, np.int16)])
    assert excess_silence(samples, RATE_HZ) == []
