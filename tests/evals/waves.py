"""Synthetic calls with known energy patterns."""

import numpy as np

from omni_jax.evals.examples import Call, Reply
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ


def tone(spans_ms, total_ms, rate_hz=SPEECH_SAMPLE_RATE_HZ, level=0.1):
    """A 200 Hz tone in each (start, end) of `spans_ms`, silence elsewhere."""
    samples = np.arange(total_ms * rate_hz // 1000)
    milliseconds = samples * 1000 / rate_hz
    on = np.zeros(len(samples), bool)
    for start, end in spans_ms:
        on |= (milliseconds >= start) & (milliseconds < end)
    return np.where(on, level * np.sin(2 * np.pi * 200 * samples / rate_hz), 0.0).astype(np.float32)


def call(user_spans_ms=((0, 1000),), total_ms=8000, **fields):
    values = {"kind": "fact", "picture": None, "question": "what comes after one", "expected": "two comes after one"}
    values |= {
        "label": "two",
        "factors": dict.fromkeys(("picture", "voice", "question", "second", "second_voice"), "0"),
    }
    return Call(user_wav=tone(user_spans_ms, total_ms, LISTEN_SAMPLE_RATE_HZ), **(values | fields))


def reply(spans_ms=(), text="", total_ms=8000):
    """`spans_ms` on the call's clock, as heard."""
    frames = total_ms // 80
    return Reply(np.full(frames, 4), text, tone(spans_ms, total_ms + 80), np.zeros((frames, 6), np.float32))
