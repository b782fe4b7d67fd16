"""Does the model answer what it is asked, repeat what it is told, and say anything at all? In the text stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omni_jax.evals.entries import mean_entry, ratio_entry
from omni_jax.evals.examples import Call, Reply
from omni_jax.evals.levels import audible, first_audible_ms, last_audible_ms
from omni_jax.evals.transcripts import contains_words, normalise, word_errors
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

NUM_SHUFFLES = 100
ANSWER_WITHIN_MS = 3000


def spoken_questions(
    calls: Sequence[Call], replies: Sequence[Reply], seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`spoken_question_accuracy`: the whole reply is the expected one after normalisation.

    `spoken_question_slot_accuracy` is the looser figure: the answer word stands in the reply. Floors: the same
    replies against shuffled questions.
    """
    exact = np.array([[normalise(r.text) == normalise(c.expected) for c in calls] for r in replies], float)
    slots = np.array([[contains_words(r.text, c.label) for c in calls] for r in replies], float)
    records = [
        {"question": call.question, "expected": call.expected, "reply": reply.text, "correct": bool(exact[i, i])}
        | call.factors
        for i, (call, reply) in enumerate(zip(calls, replies, strict=True))
    ]
    factors = _factors(calls)
    metrics: dict[str, Any] = {}
    for name, matches in (("spoken_question_accuracy", exact), ("spoken_question_slot_accuracy", slots)):
        floor = _shuffled_mean(matches, seed) if len(calls) else None
        metrics |= mean_entry(name, np.diagonal(matches) if len(calls) else [], factors, floor=floor)
    return metrics, records


def repeats(
    calls: Sequence[Call], replies: Sequence[Reply], seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`repeat_word_error_rate`: errors over words against the sentence to repeat. Floor: against shuffled sentences."""
    errors = [word_errors(call.expected, reply.text) for call, reply in zip(calls, replies, strict=True)]
    records = [
        {"expected": call.expected, "reply": reply.text, "errors": error, "words": words} | call.factors
        for call, reply, (error, words) in zip(calls, replies, errors, strict=True)
    ]
    order = np.random.default_rng(seed).permutation(len(calls))
    wrong = [word_errors(calls[j].expected, reply.text) for j, reply in zip(order, replies, strict=True)]
    floor = sum(e for e, _ in wrong) / sum(w for _, w in wrong) if wrong else None
    parts = ([e for e, _ in errors], [w for _, w in errors])
    return ratio_entry("repeat_word_error_rate", parts, _factors(calls), floor=floor), records


def no_answers(
    calls: Sequence[Call], replies: Sequence[Reply], silent_replies: Sequence[Reply]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`no_answer_rate`: asked, and nothing over -45 dBFS by 3 s after the user's last voiced sample.

    Floor: the share of calls with a user who says nothing in which nothing is said either, over the same time; a
    model that ignores the question has that rate.
    """
    said = [_first_sound_ms(reply) for reply in replies]
    silent = [first is None or first > _deadline_ms(call) for call, first in zip(calls, said, strict=True)]
    records = [
        {"question": call.question, "first_sound_ms": first, "deadline_ms": _deadline_ms(call)}
        for call, first in zip(calls, said, strict=True)
    ]
    floor = None
    if silent_replies and calls:
        deadline = float(np.median([_deadline_ms(call) for call in calls]))
        unasked = [_first_sound_ms(reply) for reply in silent_replies]
        floor = float(np.mean([first is None or first > deadline for first in unasked]))
    return mean_entry("no_answer_rate", silent, _factors(calls), floor=floor), records


def user_end_ms(call: Call) -> float:
    """End of the user's last audible 20 ms; 0 for a silent user."""
    return last_audible_ms(audible(call.user_wav, LISTEN_SAMPLE_RATE_HZ)) or 0.0


def _deadline_ms(call: Call) -> float:
    return user_end_ms(call) + ANSWER_WITHIN_MS


def _first_sound_ms(reply: Reply) -> float | None:
    return first_audible_ms(audible(reply.heard_wav, SPEECH_SAMPLE_RATE_HZ))


def _factors(calls: Sequence[Call]) -> dict[str, list[str]]:
    return {name: [call.factors[name] for call in calls] for name in ("question", "voice")}


def _shuffled_mean(matches: np.ndarray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(matches))
    return float(np.mean([matches[rows, rng.permutation(len(matches))].mean() for _ in range(NUM_SHUFFLES)]))
