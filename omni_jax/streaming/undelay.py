"""Undoes the acoustic delay: the step that emits codebook 0 of frame i emits the acoustic codebooks of frame i - delay.

Frame i is therefore complete `delay` steps after its codebook 0 (arXiv 2410.00037, section 3.4.4).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class UndelayState(NamedTuple):
    semantic: Int[Array, "B delay"]  # codebook 0 of the frames that still wait for their acoustics, oldest first
    steps: Int[Array, " B"]  # steps taken by each row


def init_undelay(rows: int, delay: int) -> UndelayState:
    return UndelayState(jnp.zeros((rows, delay), jnp.int32), jnp.zeros((rows,), jnp.int32))


def undelay_step(
    state: UndelayState, codes: Int[Array, "B Q"], exec_mask: Bool[Array, " B"]
) -> tuple[UndelayState, Int[Array, "B Q"], Bool[Array, " B"]]:
    """One step's codes as emitted -> (state, codes of one whole frame, ready).

    `ready` is False while a row warms up (its acoustics belong to a frame before the first) and where the row does
    not execute; the codes are then meaningless.
    """
    delay = state.semantic.shape[1]
    waiting = jnp.concatenate([state.semantic, codes[:, :1]], axis=1)
    aligned = jnp.concatenate([waiting[:, :1], codes[:, 1:]], axis=1)
    ready = exec_mask & (state.steps >= delay)
    moved = UndelayState(waiting[:, 1:], state.steps + 1)
    semantic = jnp.where(exec_mask[:, None], moved.semantic, state.semantic)
    return UndelayState(semantic, jnp.where(exec_mask, moved.steps, state.steps)), aligned, ready
