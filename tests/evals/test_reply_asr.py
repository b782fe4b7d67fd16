"""Whisper hears the assistant's recordings of the sample corpus; both packages are optional."""

import numpy as np
import pytest

from omni_jax.evals import reply_asr
from omni_jax.evals.examples import Reply
from omni_jax.input_pipeline.corpus import Source, load_speech

from .waves import call

needs_whisper = pytest.mark.skipif(bool(reply_asr.missing_packages()), reason=reply_asr.remedy(reply_asr.PACKAGES))
CORPUS = Source("data/corpus/picture_book")


@pytest.fixture(scope="module")
def recordings():
    clips = [clip for clip in load_speech(CORPUS, "test", 24_000) if clip.role == "assistant"]
    return [(clip.text, clip.wav()) for clip in clips[:4]]


@needs_whisper
def test_recordings_are_understood_silence_counts_fully_and_the_floor_is_high(recordings):
    replies = [Reply(np.zeros(1), text, wav, np.zeros((1, 6))) for text, wav in recordings]
    replies[3] = replies[3]._replace(heard_wav=np.zeros(24_000, np.float32))
    replies.append(Reply(np.zeros(1), "", np.zeros(24_000, np.float32), np.zeros((1, 6))))
    calls = [call(factors={"question": i, "voice": i}) for i in range(5)]
    recognise = reply_asr.load_recogniser()
    heard = [reply_asr.transcript(recognise, reply.heard_wav) for reply in replies]
    best = [(text, reply_asr.transcript(recognise, wav)) for text, wav in recordings[:2]]
    metrics, records = reply_asr.spoken_replies(calls, replies, heard, best)
    assert metrics["reply_word_error_rate_num_examples"] == 4  # a reply without text has no rate
    assert records[3]["heard"] == "" and records[3]["errors"] == records[3]["words"]
    heard = [record["errors"] / record["words"] for record in records[:3]]
    assert np.mean(heard) < 0.35
    assert metrics["reply_word_error_rate_floor"] > 0.7 > metrics["reply_word_error_rate_ceiling"]


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(reply_asr, "PACKAGES", ("no_such_recogniser",))
    with pytest.raises(ImportError, match="pip install no-such-recogniser"):
        reply_asr.load_recogniser()
