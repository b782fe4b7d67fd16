"""How long until the answer is heard, and does the loop keep up? Played in real time, compile excluded, unclamped.

Many calls are run in one batch, so their frames have no time of their own. Each call is therefore played on a clock:
the user's frame i is complete at (i + 1) 80 ms, its computation takes what one call alone took on this machine (the
measured ticks of the timed sessions, each in turn), and its output plays once it is ready and the one before has
ended (`streaming.latency`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omni_jax.evals.duplex import ENDPOINTER_MS
from omni_jax.evals.entries import entry, mean_entry
from omni_jax.evals.examples import FRAME_MS, Call, Reply
from omni_jax.streaming.latency import first_audible_seconds, last_voiced_seconds
from omni_jax.types import FRAME_SPEECH_SAMPLES


def first_audio(
    calls: Sequence[Call], replies: Sequence[Reply], tick_seconds: Sequence[Sequence[float]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`first_audio_ms_median`, `first_audio_ms_p90` and `early_start_rate` over the calls that are answered.

    Milliseconds from the user's last voiced sample to the first output over -45 dBFS; negative where the model
    starts before the user has ended, which is an early start. Floor: a detector that waits for 500 ms of silence and
    then answers in the next frame, with no computation. Ceiling: one frame, the least that an 80 ms step allows.

    Args:
      tick_seconds: what every frame took, of each timed session.
    """
    answered = [
        (call, latency)
        for index, (call, reply) in enumerate(zip(calls, replies, strict=True))
        if (latency := first_audio_ms(call, reply, tick_seconds[index % len(tick_seconds)])) is not None
    ]
    values = np.array([latency for _, latency in answered])
    factors = {name: [call.factors[name] for call, _ in answered] for name in ("question", "voice")}
    bounds = {"floor": ENDPOINTER_MS + FRAME_MS, "ceiling": FRAME_MS}
    metrics = entry("first_audio_ms_median", lambda index: float(np.median(values[index])), factors, **bounds)
    metrics |= entry("first_audio_ms_p90", lambda index: float(np.percentile(values[index], 90)), factors, **bounds)
    metrics |= mean_entry("early_start_rate", values < 0, factors, floor=1.0)
    return metrics, [{"question": call.question, "first_audio_ms": latency} for call, latency in answered]


def first_audio_ms(call: Call, reply: Reply, tick_seconds: Sequence[float]) -> float | None:
    """None where the user or the model is silent."""
    end = last_voiced_seconds(call.user_wav)
    speech = reply.heard_wav[FRAME_SPEECH_SAMPLES:]  # the clock below adds the frame that `heard_wav` starts with
    compute = np.resize(np.asarray(tick_seconds), len(speech) // FRAME_SPEECH_SAMPLES)
    start = first_audible_seconds(speech, compute)
    return None if start is None or end is None else 1000 * (start - end)


def real_time(tick_seconds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """`real_time_factor`: computation over duration of timed calls, one at a time; a call that keeps up is under 1."""
    seconds = [float(np.sum(ticks)) for ticks in tick_seconds]
    durations = [len(ticks) * FRAME_MS / 1000 for ticks in tick_seconds]
    above, below = np.array(seconds), np.array(durations)
    calls = {"call": list(range(len(seconds)))}
    metrics = entry("real_time_factor", lambda i: float(above[i].sum() / below[i].sum()), calls, floor=1.0)
    flat = np.concatenate([np.asarray(ticks) for ticks in tick_seconds]) * 1000
    shares = {"median": 50, "p90": 90, "p99": 99}
    return metrics | {f"tick_ms_{name}": float(np.percentile(flat, share)) for name, share in shares.items()}
