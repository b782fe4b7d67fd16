"""EnCodec's loss balancer (arXiv:2210.13438 section 3.4): each loss has its share of the gradient, whatever its scale.

The generator is differentiated once: every loss gives a gradient with respect to the waveform, the balancer joins
them, and the sum is pulled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

DECAY = 0.999
EPS = 1e-12


class BalancerState(NamedTuple):
    """Moving averages of the gradients' norms, one for each loss, in the losses' order."""

    norms: Float[Array, " L"]  # not yet corrected for the start at zero
    weight: Float[Array, ""]  # what the average of ones would be


def init_balancer(num_losses: int) -> BalancerState:
    return BalancerState(jnp.zeros(num_losses), jnp.zeros(()))


def balance(
    gradients: Mapping[str, Float[Array, "B N"]], weights: Mapping[str, float], state: BalancerState
) -> tuple[Float[Array, "B N"], BalancerState]:
    """The sum of the gradients, each scaled to norm weight / (sum of weights) by its average norm a row.

    `weights` has the gradients' names in a fixed order, which is that of the state.
    """
    names = list(weights)
    norms = jnp.stack([jnp.mean(jnp.linalg.norm(gradients[name], axis=-1)) for name in names])
    new = BalancerState(DECAY * state.norms + norms, DECAY * state.weight + 1.0)
    shares = jnp.asarray([weights[name] for name in names]) / sum(weights.values())
    scales = shares / (new.norms / new.weight + EPS)
    total = sum(scale * gradients[name] for scale, name in zip(scales, names))
    return jax.lax.stop_gradient(total), new
