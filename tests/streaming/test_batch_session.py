"""Many calls in one program: scan equals live loop, rows are independent, the audio is the codes' audio."""

import numpy as np
import pytest

from omni_jax.models import codec
from omni_jax.models.omni_streaming import GREEDY
from omni_jax.streaming.batch_session import BatchSession
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES

from .tiny import CODEC, MODEL, weights

_TOLERANCE = 1e-5  # the same operations in programs that were compiled apart
_FRAMES = 7


def _wav(seed: int, frames: int = _FRAMES) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, frames * FRAME_LISTEN_SAMPLES).astype(np.float32)


def _picture(seed: int) -> np.ndarray:
    side = MODEL.vision.image_size
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.float32) / 255


def _session(pictures=(None, None)) -> BatchSession:
    params, codec_params = weights()
    return BatchSession(MODEL, params, CODEC, codec_params, GREEDY, pictures, cache_frames=5)


def _push_all(session: BatchSession, wavs, masks=None) -> list:
    """Frame by frame; a row's recording advances only when the row executes."""
    place, results = [0] * len(wavs), []
    for mask in masks if masks is not None else np.ones((_FRAMES, len(wavs)), bool):
        frames = []
        for row, wav in enumerate(wavs):
            piece = wav[place[row] * FRAME_LISTEN_SAMPLES :][:FRAME_LISTEN_SAMPLES]
            frames.append(np.pad(piece, (0, FRAME_LISTEN_SAMPLES - len(piece))))
            place[row] += bool(mask[row])
        results.append(session.push(np.stack(frames), np.asarray(mask)))
    return results


def _assert_row_equal(results, expected, row: int) -> None:
    assert len(results) == len(expected)
    for name in ("text", "codes", "samples", "vad", "turn"):
        got, want = (np.stack([getattr(result, name)[row] for result in side]) for side in (results, expected))
        np.testing.assert_allclose(got, want, atol=_TOLERANCE, err_msg=name)


@pytest.fixture(scope="module")
def reference():
    """Two undisturbed calls, one with a picture."""
    return _push_all(_session([None, _picture(0)]), [_wav(0), _wav(1)])


def test_scan_equals_live_loop(reference):
    session = _session([None, _picture(0)])
    frames = session.run_offline([_wav(0), _wav(1)[: -FRAME_LISTEN_SAMPLES * 2]])
    assert frames.text.shape == (_FRAMES, 2) and frames.samples.shape == (_FRAMES, 2, FRAME_SPEECH_SAMPLES)
    for name in ("text", "codes", "samples", "vad", "turn"):
        live = np.stack([getattr(result, name) for result in reference])
        np.testing.assert_allclose(getattr(frames, name)[:, 0], live[:, 0], atol=_TOLERANCE, err_msg=name)
        np.testing.assert_allclose(getattr(frames, name)[:-2, 1], live[:-2, 1], atol=_TOLERANCE, err_msg=name)
    assert not frames.samples[-2:, 1].any(), "a row is silent after its recording"


def test_speech_is_what_the_codec_decodes(reference):
    _, codec_params = weights()
    codes = np.stack([result.codes for result in reference], axis=1)
    offline = np.asarray(codec.decode_codes(CODEC, codec_params, codes))
    speech = np.stack([result.samples for result in reference], axis=1).reshape(2, -1)
    np.testing.assert_allclose(speech, offline, atol=_TOLERANCE)
    assert np.abs(speech[:, :FRAME_SPEECH_SAMPLES]).max() > 1e-3, "the prefix has chosen the first frame already"


def test_rows_start_and_stop_out_of_step(reference):
    masks = np.array([[0, 1], [1, 1], [0, 1], [1, 0], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]], bool)
    results = _push_all(_session([None, _picture(0)]), [_wav(0), _wav(1)], masks)
    for row in range(2):
        taken = [result for result, mask in zip(results, masks) if mask[row]]
        _assert_row_equal(taken, reference[: len(taken)], row)
        idle = [result.samples[row] for result, mask in zip(results, masks) if not mask[row]]
        assert not np.any(idle)


def test_rows_do_not_hear_each_other(reference):
    results = _push_all(_session([None, _picture(3)]), [_wav(0), 5 * _wav(9)])
    _assert_row_equal(results, reference, 0)
    assert any(np.abs(a.turn[1] - b.turn[1]).max() > 1e-3 for a, b in zip(results, reference))


def test_picture_is_read(reference):
    results = _push_all(_session([None, None]), [_wav(0), _wav(1)])
    assert any(np.abs(a.turn[1] - b.turn[1]).max() > 1e-3 for a, b in zip(results, reference))


def test_reset_starts_one_row_anew(reference):
    session = _session([_picture(5), _picture(0)])
    before = [session.push(np.stack([_wav(7)[:FRAME_LISTEN_SAMPLES], _wav(1)[:FRAME_LISTEN_SAMPLES]]))]
    session.reset(np.array([True, False]), [None, None])
    tails = [
        np.pad(_wav(0), (0, FRAME_LISTEN_SAMPLES))[: _FRAMES * FRAME_LISTEN_SAMPLES],
        _wav(1)[FRAME_LISTEN_SAMPLES:],
    ]
    after = _push_all(session, tails)
    _assert_row_equal(after, reference, 0)
    _assert_row_equal(before + after[:-1], reference, 1)


def test_reset_of_all_rows_is_a_new_session(reference):
    session = _session([_picture(5), None])
    session.push(np.stack([_wav(7)[:FRAME_LISTEN_SAMPLES]] * 2))
    session.reset(np.ones(2, bool), [None, _picture(0)])
    results = _push_all(session, [_wav(0), _wav(1)])
    for row in range(2):
        _assert_row_equal(results, reference, row)


def test_warming_up_moves_nothing(reference):
    session = _session([None, _picture(0)])
    assert session.warm_up() > 0
    _assert_row_equal(_push_all(session, [_wav(0), _wav(1)]), reference, 0)


def test_wrong_shapes_are_named():
    session = _session()
    with pytest.raises(ValueError, match=r"shape \(2, 100\), want \(2, 1280\)"):
        session.push(np.zeros((2, 100), np.float32))
    with pytest.raises(ValueError, match="3 recordings for 2 rows"):
        session.run_offline([np.zeros(10)] * 3)
