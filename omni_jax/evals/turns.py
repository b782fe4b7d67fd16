"""Does TurnHead know what the user is doing? Frame states in noise, against an energy threshold and Silero."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from omni_jax.evals.entries import entry, finite
from omni_jax.evals.levels import energy_dbfs
from omni_jax.types import ABSENT, FRAME_LISTEN_SAMPLES, LISTEN_SAMPLE_RATE_HZ, TurnState

THRESHOLDS_DBFS = np.arange(-60.0, -14.0, 2.0)
SILERO_THRESHOLD = 0.5
SILERO_WINDOW_SAMPLES = 512


class TurnExample(NamedTuple):
    """One dialogue in noise."""

    user_wav: Float[np.ndarray, " N"]  # 16 kHz
    states: Int[np.ndarray, " T"]  # TurnState of the recording's frames from the first on, or ABSENT
    predicted: Int[np.ndarray, " T"]
    factors: dict[str, str]
    late_frames: int = 0  # after a frame, when its state is predicted


def turn_states(examples: Sequence[TurnExample]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`turn_f1`: F1 of each TurnState, averaged over the states that occur. A state may be named some frames late.

    Floors: `turn_f1_floor`, TURN where a frame's energy is over a threshold and IDLE elsewhere, with the threshold
    that is best in hindsight; `turn_f1_floor_silero`, the same from Silero's speech probability, when it is installed.
    """
    counts = np.array([_counts(e.states, e.predicted) for e in examples]).reshape(-1, 3, len(TurnState))
    floor = max(_total_f1(by_energy(examples, threshold)) for threshold in THRESHOLDS_DBFS) if examples else None
    # A draw of dialogues that lacks a state is left out of the interval: without rare states the mean is too high.
    occurring = np.flatnonzero(counts[:, [0, 2]].sum((0, 1)))
    metrics = entry(
        "turn_f1", lambda index: macro_f1(counts[index].sum(0), occurring), factors_of(examples), floor=floor
    )
    metrics |= {f"turn_f1_{state.name.lower()}": _state_f1(counts, state) for state in TurnState}
    metrics |= _silero(examples)
    records = [{"accuracy": _accuracy(e)} | e.factors for e in examples]
    return metrics, records


def _accuracy(example: TurnExample) -> float:
    real = example.states != ABSENT
    return float(np.mean(example.states[real] == example.predicted[real]))


def macro_f1(counts: Int[np.ndarray, "3 R"], states: Sequence[int] | None = None) -> float:
    """Mean F1 over `states`, by default those that occur; NaN where one of them does not.

    `counts` holds true positives, false positives and false negatives of every state.
    """
    hits, false_alarms, misses = counts
    occurs = hits + misses > 0
    chosen = np.flatnonzero(occurs) if states is None else np.asarray(states)
    if not len(chosen) or not occurs[chosen].all():
        return float("nan")
    f1 = 2 * hits / np.maximum(2 * hits + false_alarms + misses, 1)
    return float(f1[chosen].mean())


def _counts(states: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    real = states != ABSENT
    classes = np.arange(len(TurnState))[:, None]
    truth, guess = states[real] == classes, predicted[real] == classes
    return np.stack([(truth & guess).sum(1), (~truth & guess).sum(1), (truth & ~guess).sum(1)])


def _state_f1(counts: np.ndarray, state: TurnState) -> float | None:
    one = counts.sum(0)[:, state : state + 1]
    return finite(macro_f1(one))


def factors_of(examples: Sequence[TurnExample]) -> dict[str, list[str]]:
    """The levels of each factor, one an example."""
    names = examples[0].factors if examples else ("dialogue",)
    return {name: [e.factors[name] for e in examples] for name in names}


def by_energy(examples: Sequence[TurnExample], threshold_dbfs: float) -> list[TurnExample]:
    """With TURN where a frame's energy is over the threshold and IDLE elsewhere in place of the prediction."""
    speech = [energy_dbfs(e.user_wav, FRAME_LISTEN_SAMPLES) > threshold_dbfs for e in examples]
    return _by_speech(examples, speech)


def _by_speech(examples: Sequence[TurnExample], speech: Sequence[np.ndarray]) -> list[TurnExample]:
    guessed = []
    for example, active in zip(examples, speech, strict=True):
        frames = min(len(active), len(example.states))
        guess = np.where(active[:frames], TurnState.TURN, TurnState.IDLE)
        guessed.append(example._replace(states=example.states[:frames], predicted=guess, late_frames=0))
    return guessed


def _total_f1(examples: Sequence[TurnExample]) -> float:
    return macro_f1(sum(_counts(e.states, e.predicted) for e in examples))


def _silero(examples: Sequence[TurnExample]) -> dict[str, Any]:
    """Silero's VAD as faster-whisper carries it: an ONNX file, no PyTorch."""
    if importlib.util.find_spec("faster_whisper") is None:
        return {"turn_f1_floor_silero_skipped": "install faster-whisper: it carries Silero's VAD"}
    from faster_whisper.vad import get_vad_model

    model = get_vad_model()
    speech = [_silero_frames(model, e.user_wav) for e in examples]
    return {"turn_f1_floor_silero": _total_f1(_by_speech(examples, speech)) if examples else None}


def _silero_frames(model: Any, wav: Float[np.ndarray, " N"]) -> np.ndarray:
    padded = np.pad(wav.astype(np.float32), (0, -len(wav) % SILERO_WINDOW_SAMPLES))
    probability = np.asarray(model(padded)).reshape(-1)
    frames = len(wav) // FRAME_LISTEN_SAMPLES
    centres = (np.arange(frames) + 0.5) * FRAME_LISTEN_SAMPLES / LISTEN_SAMPLE_RATE_HZ
    windows = (centres * LISTEN_SAMPLE_RATE_HZ / SILERO_WINDOW_SAMPLES).astype(int)
    return probability[np.minimum(windows, len(probability) - 1)] > SILERO_THRESHOLD
