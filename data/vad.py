"""Where somebody speaks, by Silero's published detector (https://github.com/snakers4/silero-vad, MIT), version 6.

Needs `pip install onnxruntime` and, for the model's file alone, `pip install --no-deps silero-vad` (its Python needs
torch, and is not used).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Float

from omni_jax.errors import UserError
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ

CHUNK_SAMPLES, CONTEXT_SAMPLES = 512, 64  # the model takes 32 ms behind the last 4 of the chunk before
CHUNK_MS = 1000 * CHUNK_SAMPLES / LISTEN_SAMPLE_RATE_HZ
STATE_SHAPE = (2, 1, 128)
# Speech begins at the first threshold and ends at the second, as in the model's own code.
BEGINS, ENDS = 0.5, 0.35
SHORTEST_MS, SILENCE_MS, MARGIN_MS = 250, 400, 100

Spans = list[tuple[float, float]]  # (start, end) in ms


class Detector:
    """The probability of speech for every 32 ms of 16 kHz audio. Raises UserError where a package is missing."""

    def __init__(self):
        try:
            import onnxruntime
        except ImportError:
            raise UserError("voice activity detection needs onnxruntime: pip install onnxruntime") from None
        package = importlib.util.find_spec("silero_vad")
        if package is None:
            raise UserError("voice activity detection needs Silero's model: pip install --no-deps silero-vad")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(package.origin).parent / "data" / "silero_vad.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, wav: Float[np.ndarray, "N"]) -> Float[np.ndarray, " W"]:
        padded = np.pad(wav, (CONTEXT_SAMPLES, -len(wav) % CHUNK_SAMPLES)).astype(np.float32)
        state, rate = np.zeros(STATE_SHAPE, np.float32), np.array(LISTEN_SAMPLE_RATE_HZ, np.int64)
        found = []
        for start in range(0, len(padded) - CONTEXT_SAMPLES, CHUNK_SAMPLES):
            chunk = padded[None, start : start + CONTEXT_SAMPLES + CHUNK_SAMPLES]
            probability, state = self._session.run(None, {"input": chunk, "state": state, "sr": rate})
            found.append(probability.item())
        return np.array(found, np.float32)


def speech_spans(probabilities: Float[np.ndarray, " W"], longest_ms: float) -> Spans:
    """Stretches of speech with a margin around them. One that is too long is cut where speech is least likely, in its
    second half.
    """
    raw: list[list[int]] = []
    speaking, silent = False, 0
    for chunk, probability in enumerate(probabilities):
        if probability >= BEGINS:
            if not speaking:
                raw.append([chunk, chunk + 1])
            speaking, silent = True, 0
            raw[-1][1] = chunk + 1
        elif speaking and probability < ENDS:
            silent += 1
            speaking = silent * CHUNK_MS < SILENCE_MS
        elif speaking:
            raw[-1][1] = chunk + 1
    kept = [(first, end) for first, end in raw if (end - first) * CHUNK_MS >= SHORTEST_MS]
    parts = [part for span in kept for part in _cut(probabilities, *span, int((longest_ms - 2 * MARGIN_MS) / CHUNK_MS))]
    last_ms = len(probabilities) * CHUNK_MS
    return [(max(0.0, a * CHUNK_MS - MARGIN_MS), min(last_ms, b * CHUNK_MS + MARGIN_MS)) for a, b in parts]


def _cut(probabilities: Float[np.ndarray, " W"], first: int, end: int, longest: int) -> list[tuple[int, int]]:
    parts = []
    while end - first > longest:
        middle = first + longest // 2
        at = middle + int(np.argmin(probabilities[middle : first + longest]))
        parts.append((first, at))
        first = at
    return [*parts, (first, end)]
