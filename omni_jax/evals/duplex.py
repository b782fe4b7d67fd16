"""Both sides speak: does the model stop when it is interrupted, go on through the rest, and wait in pauses?

All times are on the call's clock as heard (`Reply.heard_wav`). An output has stopped when it stays under -45 dBFS for
400 ms. Each call with a second clip is run twice with the same seeds: without the clip (to know when the model speaks,
and what it would have done) and with the clip put in from `event_ms` on; up to there both runs are identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from omni_jax.evals.entries import mean_entry
from omni_jax.evals.examples import FRAME_MS, Call, Reply
from omni_jax.evals.levels import audible, first_audible_ms, last_audible_ms, stop_ms
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

STOP_WITHIN_MS = 1000
SPEECH_DUE_MS = 1500  # how much the model must still have to say when the second clip starts
ENDPOINTER_MS = 500  # the floor of the pauses: a detector that takes the turn after this much silence
MIN_SPEECH_MS = 400  # how long the model has spoken, at least, when the second clip starts
SPREAD_MS = 400


class Overlap(NamedTuple):
    """One call in which the user makes a sound while the model speaks."""

    call: Call
    event_ms: float  # start of `call.second_wav`
    alone: Reply  # same seeds, without the second clip
    heard: Reply  # with it


def overlap_start_ms(alone: Reply, rng: np.random.Generator) -> float | None:
    """Where the second clip goes: 0.4 to 0.8 s after the model starts, on a frame; None with under 1.5 s due then."""
    windows = audible(alone.heard_wav, SPEECH_SAMPLE_RATE_HZ)
    start, end = first_audible_ms(windows), last_audible_ms(windows)
    if start is None or end is None:
        return None
    wanted = start + MIN_SPEECH_MS + rng.uniform(0, SPREAD_MS)
    event = float(np.ceil(wanted / FRAME_MS) * FRAME_MS)
    return event if end - event >= SPEECH_DUE_MS else None


def with_second_clip(call: Call, event_ms: float) -> Call:
    """The same call with `second_wav` mixed into the user's side from `event_ms` on."""
    start = round(event_ms * LISTEN_SAMPLE_RATE_HZ / 1000)
    length = max(len(call.user_wav), start + len(call.second_wav))
    wav = np.zeros(length, np.float32)
    wav[: len(call.user_wav)] = call.user_wav
    wav[start : start + len(call.second_wav)] += call.second_wav
    return call._replace(user_wav=wav)


def interruptions(overlaps: Sequence[Overlap]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`interruption_stop_share_1000ms`: silence starts within 1 s after the interrupting word is identifiable.

    Floor: the share that the same seeds without interruption show at the same time.
    """
    windows = [(o.event_ms + o.call.identified_ms, STOP_WITHIN_MS) for o in overlaps]
    stopped = [_stops(o.heard, *window) for o, window in zip(overlaps, windows, strict=True)]
    by_itself = [_stops(o.alone, *window) for o, window in zip(overlaps, windows, strict=True)]
    records = [
        {"kind": o.call.kind, "event_ms": at, "stop_ms": _stop(o.heard, at), "stop_alone_ms": _stop(o.alone, at)}
        | {"stopped": done, "question": o.call.question, "reply": o.heard.text, "reply_alone": o.alone.text}
        for o, (at, _), done in zip(overlaps, windows, stopped, strict=True)
    ]
    floor = float(np.mean(by_itself)) if overlaps else None
    return mean_entry("interruption_stop_share_1000ms", stopped, _factors(overlaps), floor=floor), records


def backchannels(
    overlaps: Sequence[Overlap], interruption_stop_share: float | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`backchannel_continue_share`: no stop from the start of a backchannel, noise or side talk to 1 s after its end.

    Floor: the share that goes on through real interruptions, which is what a model has that can't tell them apart.
    Ceiling: the same seeds without the sound, at the same time.
    """
    durations = [1000 * len(o.call.second_wav) / LISTEN_SAMPLE_RATE_HZ for o in overlaps]
    spans = [_due_span(o, duration + STOP_WITHIN_MS) for o, duration in zip(overlaps, durations, strict=True)]
    continued = [not _stops(o.heard, o.event_ms, span) for o, span in zip(overlaps, spans, strict=True)]
    alone = [not _stops(o.alone, o.event_ms, span) for o, span in zip(overlaps, spans, strict=True)]
    records = [
        {"kind": o.call.kind, "event_ms": o.event_ms, "continued": on, "question": o.call.question}
        | {"reply": o.heard.text, "reply_alone": o.alone.text}
        for o, on in zip(overlaps, continued, strict=True)
    ]
    floor = None if interruption_stop_share is None else 1 - interruption_stop_share
    ceiling = float(np.mean(alone)) if overlaps else None
    return mean_entry(
        "backchannel_continue_share", continued, _factors(overlaps), floor=floor, ceiling=ceiling
    ), records


def pauses(calls: Sequence[Call], replies: Sequence[Reply]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`pause_takeover_rate`: the share of pauses inside a turn, each its own example, in which the model is audible.

    Floor: a detector that takes the turn after 500 ms of silence takes over in every longer pause.
    """
    found = [
        (call, span, _speaks_between(reply.heard_wav, *span))
        for call, reply in zip(calls, replies, strict=True)
        for span in call.pauses_ms
    ]
    records = [{"question": c.question, "pause_ms": list(span), "taken": taken} for c, span, taken in found]
    factors = {name: [call.factors[name] for call, _, _ in found] for name in ("question", "voice")}
    floor = float(np.mean([end - start > ENDPOINTER_MS for _, (start, end), _ in found])) if found else None
    return mean_entry("pause_takeover_rate", [taken for *_, taken in found], factors, floor=floor), records


def _stop(reply: Reply, at_ms: float) -> float | None:
    return stop_ms(audible(reply.heard_wav, SPEECH_SAMPLE_RATE_HZ), at_ms)


def _stops(reply: Reply, at_ms: float, within_ms: float) -> bool:
    stop = _stop(reply, at_ms)
    return stop is not None and stop - at_ms <= within_ms


def _due_span(overlap: Overlap, wanted_ms: float) -> float:
    """`wanted_ms`, cut where the model would have ended by itself: a natural end is no stop."""
    end = last_audible_ms(audible(overlap.alone.heard_wav, SPEECH_SAMPLE_RATE_HZ))
    return min(wanted_ms, end - 1 - overlap.event_ms)


def _speaks_between(wav: Float[np.ndarray, " N"], start_ms: float, end_ms: float) -> bool:
    onset = first_audible_ms(audible(wav, SPEECH_SAMPLE_RATE_HZ), start_ms)
    return onset is not None and onset < end_ms


def _factors(overlaps: Sequence[Overlap]) -> dict[str, list[str]]:
    names = ("question", "voice", "second", "second_voice")
    return {name: [overlap.call.factors[name] for overlap in overlaps] for name in names}
