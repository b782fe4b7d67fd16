"""Bad steps change nothing: not-finite numbers and spikes are found and skipped inside the compiled step.

A step is bad when its loss or gradient norm is not finite, when the norm is `spike_factor` times its running mean, or
when the loss lies `spike_factor` mean absolute deviations above its own. Parameters, moments and whatever else the
optimizer state holds stay as they were; only the step counter goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

DECAY = 0.98  # of the running means
SETTLING_STEPS = 50  # good steps before a spike can be told from the start of training


class GuardState(NamedTuple):
    skipped: Int[Array, ""]  # so far
    in_a_row: Int[Array, ""]
    good: Int[Array, ""]  # good steps so far
    loss: Float[Array, ""]  # running mean
    deviation: Float[Array, ""]  # running mean of the loss' distance from its mean
    norm: Float[Array, ""]  # running mean of the gradient norm


def new_guard() -> GuardState:
    """All zero, each in a buffer of its own, because steps donate them."""
    return GuardState(*(jnp.zeros((), dtype) for dtype in (jnp.int32,) * 3 + (jnp.float32,) * 3))


def guarded(
    step_function: Callable[[Any, Any], tuple[Any, dict[str, Array]]], spike_factor: float
) -> Callable[[Any, Any], tuple[Any, dict[str, Array]]]:
    """A pure step whose bad steps leave the state as it was; its metrics must hold `loss` and `gradient_norm`.

    Adds the metrics `skipped_steps` and `bad_steps_in_a_row`. `spike_factor` 0 skips only what is not finite.
    """

    def step(state: Any, batch: Any) -> tuple[Any, dict[str, Array]]:
        new, metrics = step_function(state, batch)
        bad, guard = judge(state.guard, metrics["loss"], metrics["gradient_norm"], spike_factor)
        kept = jax.tree.map(
            lambda new, old: jnp.where(bad, old, new),
            (new.params, new.opt_state),
            (state.params, state.opt_state),
        )
        counts = {"skipped_steps": guard.skipped, "bad_steps_in_a_row": guard.in_a_row}
        metrics = metrics | {name: count.astype(jnp.float32) for name, count in counts.items()}
        return new._replace(params=kept[0], opt_state=kept[1], guard=guard), metrics

    return step


def judge(
    guard: GuardState, loss: Float[Array, ""], norm: Float[Array, ""], spike_factor: float
) -> tuple[Bool[Array, ""], GuardState]:
    """Whether a step is bad, and the guard after it.

    A spike moves the running means too, by no more than the limit it broke: a lasting change of level is skipped for a
    few steps and then accepted.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    norm_limit = spike_factor * guard.norm
    loss_limit = guard.loss + spike_factor * guard.deviation
    settled = (guard.good >= SETTLING_STEPS) & (spike_factor > 0)
    bad = ~finite | (settled & ((norm > norm_limit) | (loss > loss_limit)))
    loss = jnp.where(settled, jnp.minimum(loss, loss_limit), loss)
    norm = jnp.where(settled, jnp.minimum(norm, norm_limit), norm)
    decay = jnp.minimum(DECAY, guard.good / (guard.good + 1.0))  # a plain mean at first

    def mean(old: Array, new: Array) -> Array:
        return jnp.where(finite, decay * old + (1.0 - decay) * new, old)

    counted = GuardState(
        skipped=guard.skipped + bad,
        in_a_row=jnp.where(bad, guard.in_a_row + 1, 0),
        good=guard.good + ~bad,
        loss=mean(guard.loss, loss),
        deviation=mean(guard.deviation, jnp.abs(loss - guard.loss)),
        norm=mean(guard.norm, norm),
    )
    return bad, counted
