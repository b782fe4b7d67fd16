"""The demo: whom it shows, when its user cuts in, and what it prints and keeps."""

import io

import numpy as np
import pytest
import soundfile
from rich.console import Console

from omni_jax import demo
from omni_jax.config import Config, DataConfig
from omni_jax.errors import UserError
from omni_jax.evals.examples import Call
from omni_jax.evals.held_out import load_held_out
from omni_jax.input_pipeline.corpus import load_pictures, load_speech
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.streaming.call import summarise
from omni_jax.streaming.session import FrameResult
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES, TurnState


class ScriptedSession:
    """Speaks in the frames of `speaking`; keeps what it heard."""

    def __init__(self, speaking):
        self.speaking, self.heard = speaking, []

    def push(self, samples):
        speaks = len(self.heard) in self.speaking
        self.heard.append(samples)
        loud = np.full(FRAME_SPEECH_SAMPLES, 0.1 * speaks, np.float32)
        return FrameResult(20, " hi" * speaks, None if speaks else "LISTEN", loud, 0.0, TurnState(speaks), 0.02)


@pytest.fixture
def interrupted():
    """Frame after frame of silence from the user, who cuts in with two and a half frames of sound."""
    second = np.full(int(2.5 * FRAME_LISTEN_SAMPLES), 0.2, np.float32)
    session = ScriptedSession(range(5, 30))
    line = demo.Interrupter(session, second)
    results = [line.push(np.zeros(FRAME_LISTEN_SAMPLES, np.float32)) for _ in range(40)]
    wav = np.zeros(10 * FRAME_LISTEN_SAMPLES, np.float32)
    wav[:FRAME_LISTEN_SAMPLES] = 0.1
    factors = {"voice": "", "question": "", "picture": ""}
    call = Call("interruption", wav, None, "tell me", "", "", factors, second_wav=second, second_text="stop")
    return session, demo.Talk(call, results, summarise(results, wav), line.event_frame)


def test_the_user_cuts_in_when_the_model_has_been_speaking(interrupted):
    session, talk = interrupted
    assert talk.event_frame == 5 + demo.SPOKEN_FRAMES
    heard = np.concatenate(session.heard)
    start = talk.event_frame * FRAME_LISTEN_SAMPLES
    np.testing.assert_array_equal(heard[start:][: len(talk.call.second_wav)], talk.call.second_wav)
    assert np.count_nonzero(heard) == len(talk.call.second_wav)


def test_what_happened_is_shown_and_kept(interrupted, tmp_path):
    talk = interrupted[1]
    out = io.StringIO()
    demo.show(Console(file=out, width=200), talk)
    assert "user   tell me" in out.getvalue() and "(cuts in)" in out.getvalue()
    assert "model  " + "·" * 5 + "█" * 25 + "·" * 10 in out.getvalue()
    assert "silent +1280 ms" in out.getvalue()  # said frames 5 to 29, heard one frame later; cut in at frame 15
    path = tmp_path / "conversation.wav"
    demo.write_conversation(path, [talk, talk])
    wav, rate = soundfile.read(path)
    assert rate == 24_000 and wav.shape == (2 * 41 * FRAME_SPEECH_SAMPLES, 2)


def test_a_recording_that_cannot_be_kept_is_said_before_the_calls(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot be made"):
        demo.main(["--model=nowhere", f"--out={tmp_path / 'out'}"])


def test_pictures_and_voices_are_held_out():
    materials = load_materials(Config(data=DataConfig()), "test")
    held = load_held_out(materials, demo.QUESTION_FRAMES)
    *pictures, interrupted = demo.choose_calls(held, 0)
    assert len({call.label for call in pictures}) == 3 and interrupted.second_text
    trained = {clip.voice for clip in load_speech(materials.source, "train", 24_000) if clip.role == "user"}
    assert trained and not trained & {call.factors["voice"] for call in [*pictures, interrupted]}
    shown = {picture.cluster for picture in load_pictures(materials.source, "train")}
    assert shown and not shown & {call.factors["picture"] for call in pictures}
    assert [call.label for call in demo.choose_calls(held, 1)] != [call.label for call in pictures]
