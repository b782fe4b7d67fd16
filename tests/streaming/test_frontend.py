"""The mel computed slot by slot is the mel of the whole signal."""

import numpy as np

from omni_jax import dsp
from omni_jax.streaming.frontend import init_tail, mel_step
from omni_jax.types import FRAME_LISTEN_SAMPLES

_ROUNDING = 1e-6


def test_slots_equal_whole_signal():
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 5 * FRAME_LISTEN_SAMPLES)).astype(np.float32)
    tail, slots = np.asarray(init_tail(2)), []
    for start in range(0, wav.shape[1], FRAME_LISTEN_SAMPLES):
        tail, mel = mel_step(tail, wav[:, start : start + FRAME_LISTEN_SAMPLES], 80)
        slots.append(mel)
    np.testing.assert_allclose(np.concatenate(slots, axis=1), dsp.log_mel_streaming(wav, 80), atol=_ROUNDING)


def test_slot_does_not_depend_on_later_samples():
    wav = np.random.default_rng(1).uniform(-0.5, 0.5, (1, FRAME_LISTEN_SAMPLES)).astype(np.float32)
    impulse = wav.copy()
    impulse[0, -160:] += 0.5  # the last mel frame's own samples
    before, after = (np.asarray(mel_step(np.asarray(init_tail(1)), x, 80)[1]) for x in (wav, impulse))
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert np.abs(before[:, -1] - after[:, -1]).max() > _ROUNDING
