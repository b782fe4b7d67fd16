"""Signal processing against references written here in float64, and causality by impulses."""

import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax import dsp

WHISPER_TOLERANCE = 5e-5
EXACT = 1e-6


def speech_like(num_samples: int, seed: int = 0) -> np.ndarray:
    """Harmonics of a gliding pitch with pauses, and a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16_000
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time)) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 1.3 * time) > -0.4)
    return (0.1 * voice + 0.002 * rng.normal(size=num_samples)).astype(np.float32)


def slaney_filters_float64(num_mels: int) -> np.ndarray:
    """Bin by bin, from the definition: linear below 1 kHz, then 27 mels for a factor of 6.4; triangles of unit area."""

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(8.0) / np.log(6.4)
    edges = [to_hz(top * i / (num_mels + 1)) for i in range(num_mels + 2)]
    filters = np.zeros((201, num_mels))
    for band in range(num_mels):
        low, centre, high = edges[band : band + 3]
        for bin_index in range(201):
            hz = bin_index * 40.0
            weight = min((hz - low) / (centre - low), (high - hz) / (high - centre))
            filters[bin_index, band] = max(weight, 0.0) * 2 / (high - low)
    return filters


def whisper_float64(wav: np.ndarray, num_mels: int) -> np.ndarray:
    padded = np.pad(np.concatenate([wav.astype(np.float64), np.zeros(480_000 - len(wav))]), 200, mode="reflect")
    window = np.hanning(401)[:-1]
    frames = np.stack([padded[t * 160 : t * 160 + 400] * window for t in range(3000)])
    mel = np.abs(np.fft.rfft(frames)) ** 2 @ slaney_filters_float64(num_mels)
    log_mel = np.log10(np.maximum(mel, 1e-10))
    return (np.maximum(log_mel, log_mel.max() - 8) + 4) / 4


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_log_mel_whisper_is_the_reference(num_mels, as_array):
    wav = speech_like(160_000)
    ours = dsp.log_mel_whisper(as_array(wav), num_mels)
    assert ours.shape == (3000, num_mels) and ours.dtype == np.float32
    assert np.abs(np.asarray(ours) - whisper_float64(wav, num_mels)).max() < WHISPER_TOLERANCE


def test_log_mel_whisper_refuses_more_than_30_seconds():
    with pytest.raises(ValueError, match="480001 samples exceed"):
        dsp.log_mel_whisper(np.zeros(480_001, np.float32))


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_streaming_mel_in_pieces_equals_whole(as_array):
    wav = as_array(speech_like(1280 * 5).reshape(1, -1))
    whole = dsp.log_mel_streaming(wav)
    history, pieces = None, []
    for start in range(0, wav.shape[1], 1280):
        piece = wav[:, start : start + 1280]
        pieces.append(np.asarray(dsp.log_mel_streaming(piece, history=history)))
        history = piece[:, -dsp.STREAMING_HISTORY_SAMPLES :]
    assert whole.shape == (1, 40, 80)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-5)


@pytest.mark.parametrize("sample", [0, 159, 160, 1283])
def test_streaming_mel_sees_a_sample_in_its_own_frame_and_never_before(sample):
    quiet = np.zeros(1600, np.float32)
    loud = quiet.copy()
    loud[sample] = 1.0
    changed = np.abs(dsp.log_mel_streaming(loud) - dsp.log_mel_streaming(quiet)).max(axis=-1) > EXACT
    assert not changed[: sample // 160].any()
    # A window ends with its frame, where Hann is near zero: only the frame's very last sample may enter unheard.
    assert changed[sample // 160] or sample % 160 == 159
    assert changed[sample // 160 + 1]


def test_streaming_mel_scale_is_fixed():
    wav = speech_like(3200)
    alone = dsp.log_mel_streaming(wav)
    followed = dsp.log_mel_streaming(np.concatenate([wav, np.full(1600, 0.9, np.float32)]))
    # Not bit by bit: a product of more rows may add in another order.
    np.testing.assert_allclose(alone, followed[: len(alone)], rtol=0, atol=1e-6)


def test_numpy_and_jax_agree():
    wav = speech_like(8000)
    np.testing.assert_allclose(dsp.log_mel_streaming(jnp.asarray(wav)), dsp.log_mel_streaming(wav), atol=1e-4)


def test_frame_causal_is_right_aligned():
    frames = dsp.frame_causal(np.arange(1, 13, dtype=np.float32), window=5, hop=2)
    np.testing.assert_array_equal(frames[0], [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(frames[-1], [8, 9, 10, 11, 12])
    with pytest.raises(ValueError, match="not a multiple of hop=2"):
        dsp.frame_causal(np.zeros(7, np.float32), window=5, hop=2)


def test_frame_refuses_too_short_audio():
    with pytest.raises(ValueError, match="fewer than"):
        dsp.frame(np.zeros(3, np.float32), window=8, hop=4)


@pytest.mark.parametrize("pieces", [1, 2, 8])
def test_overlap_add_is_the_sum_of_shifted_frames(pieces):
    frames = np.random.default_rng(0).normal(size=(2, 8, 12)).astype(np.float32)
    expected = np.zeros((2, 8 * 4 + 8), np.float32)
    for t in range(8):
        expected[:, t * 4 : t * 4 + 12] += frames[:, t]
    tail, done = np.zeros((2, 8), np.float32), []
    for part in np.split(frames, pieces, axis=1):
        wav, tail = dsp.overlap_add(part, 4, tail)
        done.append(wav)
    np.testing.assert_allclose(np.concatenate([*done, tail], axis=1), expected, atol=EXACT)
