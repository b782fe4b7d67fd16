"""Does the model answer what it is asked, repeat what it is told, and say anything at all? In the text stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omni_jax.evals.entries import mean_entry, ratio_entry
from omni_jax.evals.examples import Call, Reply
from omni_jax.evals.levels import audible, first_audible_ms, last_audible_ms
from omni_jax.evals.transcripts import normalise, word_errors
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

NUM_SHUFFLES = 100
ANSWER_WITHIN_MS = 3000


def spoken_questions(
    calls: Sequence[Call], replies: Sequence[Reply], seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`spoken_question_accuracy`: the whole reply is the expected one after normalisation.

    `spoken_question_word_error_rate` is the finer figure. Floors: the same replies against shuffled questions.
    """
    exact = np.array([[normalise(r.text) == normalise(c.expected) for c in calls] for r in replies], float)
    errors, words = _errors(calls, replies)
    records = [
        {"question": call.question, "expected": call.expected, "reply": reply.text, "correct": bool(exact[i, i])}
        | call.factors
        for i, (call, reply) in enumerate(zip(calls, replies, strict=True))
    ]
    factors = _factors(calls)
    right = np.diagonal(exact) if len(calls) else []
    floor = _shuffled_mean(exact, seed) if len(calls) else None
    metrics = mean_entry("spoken_question_accuracy", right, factors, floor=floor)
    floor = _shuffled_rate(calls, replies, seed)
    return metrics | ratio_entry("spoken_question_word_error_rate", (errors, words), factors, floor=floor), records


def repeats(
    calls: Sequence[Call], replies: Sequence[Reply], seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`repeat_word_error_rate`: errors over words against the sentence to repeat. Floor: against shuffled sentences."""
    errors, words = _errors(calls, replies)
    records = [
        {"expected": call.expected, "reply": reply.text, "errors": wrong, "words": count} | call.factors
        for call, reply, wrong, count in zip(calls, replies, errors, words, strict=True)
    ]
    floor = _shuffled_rate(calls, replies, seed)
    return ratio_entry("repeat_word_error_rate", (errors, words), _factors(calls), floor=floor), records


def no_answers(
    calls: Sequence[Call], replies: Sequence[Reply], silent_replies: Sequence[Reply]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`no_answer_rate`: asked, and nothing over -45 dBFS in the 3 s after the user's last voiced sample.

    Floor: the share of calls with a user who says nothing in which nothing is said either, at the same time of the
    call; a model that ignores the question has that rate.
    """
    ends = [user_end_ms(call) for call in calls]
    said = [_sound_ms(reply, end) for reply, end in zip(replies, ends, strict=True)]
    records = [
        {"question": call.question, "user_end_ms": end, "sound_ms": sound}
        for call, end, sound in zip(calls, ends, said, strict=True)
    ]
    floor = None
    if silent_replies and calls:
        floor = float(np.mean([_sound_ms(reply, float(np.median(ends))) is None for reply in silent_replies]))
    return mean_entry("no_answer_rate", [sound is None for sound in said], _factors(calls), floor=floor), records


def user_end_ms(call: Call) -> float:
    """End of the user's last audible 20 ms; 0 for a silent user."""
    return last_audible_ms(audible(call.user_wav, LISTEN_SAMPLE_RATE_HZ)) or 0.0


def _sound_ms(reply: Reply, end_ms: float) -> float | None:
    """When the model is first heard in the 3 s from `end_ms` on."""
    first = first_audible_ms(audible(reply.heard_wav, SPEECH_SAMPLE_RATE_HZ), end_ms)
    return first if first is not None and first <= end_ms + ANSWER_WITHIN_MS else None


def _factors(calls: Sequence[Call]) -> dict[str, list[str]]:
    return {name: [call.factors[name] for call in calls] for name in ("question", "voice")}


def _errors(calls: Sequence[Call], replies: Sequence[Reply]) -> tuple[list[int], list[int]]:
    pairs = [word_errors(call.expected, reply.text) for call, reply in zip(calls, replies, strict=True)]
    return [errors for errors, _ in pairs], [words for _, words in pairs]


def _shuffled_rate(calls: Sequence[Call], replies: Sequence[Reply], seed: int) -> float | None:
    order = np.random.default_rng(seed).permutation(len(calls))
    errors, words = _errors([calls[i] for i in order], replies)
    return sum(errors) / sum(words) if words else None


def _shuffled_mean(matches: np.ndarray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(matches))
    return float(np.mean([matches[rows, rng.permutation(len(matches))].mean() for _ in range(NUM_SHUFFLES)]))
