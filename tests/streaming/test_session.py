"""One call, frame by frame, with its transcript."""

import numpy as np
import pytest

from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.session import Session
from omni_jax.types import FRAME_LISTEN_SAMPLES, Control, TurnState

from .tiny import CODEC, MODEL, weights

_SAMPLING = Sampling(text_temperature=1.0, audio_temperature=1.0)


class _Letters:
    """A vocabulary in which every piece is one letter."""

    def id_to_piece(self, id: int) -> str:
        return chr(ord("A") + id)

    def is_byte(self, id: int) -> bool:
        return False


def _session(seed: int = 0) -> Session:
    params, codec_params = weights()
    return Session(MODEL, params, CODEC, codec_params, _SAMPLING, vocabulary=_Letters(), seed=seed)


@pytest.fixture(scope="module")
def wav():
    return np.random.default_rng(0).normal(0, 0.1, 12 * FRAME_LISTEN_SAMPLES).astype(np.float32)


@pytest.fixture(scope="module")
def live(wav):
    session = _session()
    return [session.push(piece) for piece in wav.reshape(-1, FRAME_LISTEN_SAMPLES)]


def test_offline_equals_live_when_sampled(live, wav):
    for a, b in zip(_session().run_offline(wav), live, strict=True):
        assert (a.text_id, a.text_piece, a.control, a.turn_state) == (b.text_id, b.text_piece, b.control, b.turn_state)
        np.testing.assert_allclose(a.samples, b.samples, atol=1e-5)


def test_frame_result_fields(live):
    assert len({result.text_id for result in live}) > 3
    for result in live:
        if result.text_id <= max(Control):
            assert (result.control, result.text_piece) == (Control(result.text_id).name, "")
        else:
            assert (result.control, result.text_piece) == (None, chr(ord("A") + result.text_id))
        assert 0.0 <= result.vad <= 1.0 and isinstance(result.turn_state, TurnState) and result.seconds > 0


def test_seed_chooses_another_call(live, wav):
    again, other = _session(seed=0).run_offline(wav), _session(seed=1).run_offline(wav)
    ids = [result.text_id for result in live]
    assert [result.text_id for result in again] == ids != [result.text_id for result in other]


def test_frame_length_is_checked():
    with pytest.raises(ValueError, match="1000 samples, want 1280"):
        _session().push(np.zeros(1000))
