"""Many calls in one program: every row is a dialogue of its own, with its own picture, start and end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from omni_jax.codec_config import CodecConfig
from omni_jax.model_config import ModelConfig
from omni_jax.models import omni_streaming
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.prefix import Picture, prefix_batch, prefix_slots
from omni_jax.streaming.tick import (
    TickConfig,
    TickOutput,
    TickState,
    Weights,
    begin,
    init_tick,
    jit_init_tick,
    jit_tick,
    scan_ticks,
)
from omni_jax.types import FRAME_LISTEN_SAMPLES

CACHE_FRAMES = 256  # 20 s of call history besides the pinned prefix
_SCAN_FRAMES = 25  # frames a program of `run_offline`; recordings are padded to a multiple


class BatchFrames(NamedTuple):
    """Outputs of B rows. `push` gives one frame without the T axis; `run_offline` gives all."""

    text: Int[np.ndarray, "T B"]
    codes: Int[np.ndarray, "T B Q"]  # the frame that `samples` was decoded from
    samples: Float[np.ndarray, "T B N"]  # 1,920 at 24 kHz
    vad: Float[np.ndarray, "T B"]
    turn: Float[np.ndarray, "T B R"]  # probabilities of TurnState, TURN_DELAY_FRAMES before
    seconds: float  # wall time of the whole computation

    def speech(self, row: int) -> Float[np.ndarray, " N"]:
        """One row's waveform at 24 kHz over all frames."""
        return self.samples[:, row].reshape(-1)


class BatchSession:
    """B full-duplex calls that share one compiled step. State lives here; all computation in `tick`."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        codec_config: CodecConfig,
        codec_params: Any,
        sampling: Sampling,
        pictures: Sequence[Picture | None],
        cache_frames: int = CACHE_FRAMES,
        seed: int = 0,
    ) -> None:
        """`pictures`: one entry a row, RGB [H, W, 3] in [0, 1] at the model's image size, or None."""
        self._config = TickConfig(config, codec_config, sampling)
        self._weights = Weights(params, codec_params)
        self._cache_frames = cache_frames
        self.rows = len(pictures)
        self._state = self._initial_state(pictures, seed)

    def push(self, samples: Float[np.ndarray, "B N"], exec_mask: Bool[np.ndarray, " B"] | None = None) -> BatchFrames:
        """One frame of 1,280 samples at 16 kHz a row; rows outside `exec_mask` stand still and give zeros."""
        samples = np.ascontiguousarray(samples, np.float32)
        if samples.shape != (self.rows, FRAME_LISTEN_SAMPLES):
            raise ValueError(
                f"push: samples have shape {samples.shape}, want ({self.rows}, {FRAME_LISTEN_SAMPLES}): one 80 ms "
                "frame at 16 kHz a row"
            )
        mask = np.ones(self.rows, bool) if exec_mask is None else np.asarray(exec_mask, bool)
        start = time.perf_counter()
        self._state, output = jit_tick(self._config, self._weights, self._state, samples, mask)
        return _to_host(output, start)

    def run_offline(self, user_wavs: Sequence[Float[np.ndarray, " _N"]]) -> BatchFrames:
        """Whole recordings at once, equal to pushing them frame by frame; a row stops at its recording's end.

        Recordings are padded with silence to whole frames. Frames after a row's end are zeros.
        """
        if len(user_wavs) != self.rows:
            raise ValueError(f"run_offline: {len(user_wavs)} recordings for {self.rows} rows, want one a row")
        samples, mask = _frames(user_wavs)
        start = time.perf_counter()
        chunks = []
        for first in range(0, len(samples), _SCAN_FRAMES):
            part = slice(first, first + _SCAN_FRAMES)
            self._state, output = scan_ticks(self._config, self._weights, self._state, samples[part], mask[part])
            chunks.append(jax.device_get(output))
        frames = max(-(-len(wav) // FRAME_LISTEN_SAMPLES) for wav in user_wavs)
        joined = jax.tree.map(lambda *parts: np.concatenate(parts)[:frames], *chunks)
        return _to_host(joined, start)

    def warm_up(self) -> float:
        """Compiles the step without moving any row; returns the seconds it took."""
        idle = np.zeros((self.rows, FRAME_LISTEN_SAMPLES), np.float32)
        return self.push(idle, np.zeros(self.rows, bool)).seconds

    def reset(self, rows: Bool[np.ndarray, " B"], pictures: Sequence[Picture | None], seed: int = 0) -> None:
        """Starts new calls in the given rows; the other rows go on undisturbed (their `pictures` are not read).

        `seed` counts when all rows start anew; otherwise the rows share the random numbers that are under way.
        """
        chosen = [picture if row else None for row, picture in zip(rows, pictures, strict=True)]
        fresh = self._initial_state(chosen, seed)
        self._state = fresh if np.all(rows) else _replace_rows(self._axes(), self._state, fresh, np.asarray(rows, bool))

    def _initial_state(self, pictures: Sequence[Picture | None], seed: int) -> TickState:
        config, weights = self._config, self._weights
        slots = prefix_slots(config.model)
        state = jit_init_tick(config, weights, self.rows, self._cache_frames, slots, jax.random.key(seed))
        prefix = prefix_batch(config.model, pictures)
        return begin(state._replace(model=omni_streaming.prefill(config.model, weights.model, state.model, prefix)))

    def _axes(self) -> tuple[int | None, ...]:
        """Batch axis of every leaf of the state: the one whose length follows the number of rows."""

        def shapes(rows: int) -> list[tuple[int, ...]]:
            slots, key = prefix_slots(self._config.model), jax.random.key(0)
            state = jax.eval_shape(lambda: init_tick(self._config, self._weights, rows, self._cache_frames, slots, key))
            return [leaf.shape for leaf in jax.tree.leaves(state)]

        pairs = zip(shapes(self.rows), shapes(self.rows + 1), strict=True)
        return tuple(next((axis for axis, (m, n) in enumerate(zip(a, b)) if m != n), None) for a, b in pairs)


@partial(jax.jit, static_argnums=0)
def _replace_rows(
    axes: tuple[int | None, ...], state: TickState, fresh: TickState, rows: Bool[np.ndarray, " B"]
) -> TickState:
    def pick(axis: int | None, old: jax.Array, new: jax.Array) -> jax.Array:
        if axis is None:
            return old
        shape = [1] * old.ndim
        shape[axis] = -1
        return jnp.where(rows.reshape(shape), new, old)

    old, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, map(pick, axes, old, jax.tree.leaves(fresh)))


def _frames(
    user_wavs: Sequence[Float[np.ndarray, " N"]],
) -> tuple[Float[np.ndarray, "T B N"], Bool[np.ndarray, "T B"]]:
    """Pads to a common multiple of the scan length, so that every recording runs through the same program."""
    counts = np.array([-(-len(wav) // FRAME_LISTEN_SAMPLES) for wav in user_wavs])
    total = -(-max(1, counts.max()) // _SCAN_FRAMES) * _SCAN_FRAMES
    padded = np.zeros((len(user_wavs), total * FRAME_LISTEN_SAMPLES), np.float32)
    for row, wav in enumerate(user_wavs):
        padded[row, : len(wav)] = wav
    samples = padded.reshape(len(user_wavs), total, FRAME_LISTEN_SAMPLES).swapaxes(0, 1)
    return np.ascontiguousarray(samples), np.arange(total)[:, None] < counts[None, :]


def _to_host(output: TickOutput, start: float) -> BatchFrames:
    output = jax.device_get(output)
    return BatchFrames(*output, seconds=time.perf_counter() - start)
