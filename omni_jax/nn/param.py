"""Creation of parameters with their logical axes, and stacks of equal layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.nn.low_rank import has_updates, update_layer

Layer = TypeVar("Layer", bound=nnx.Module)


def weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], std: float) -> nnx.Param:
    """A float32 parameter from a normal distribution truncated at two standard deviations."""
    return nnx.Param(std * jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape), axes=axes)


def constant(shape: tuple[int, ...], axes: tuple[str, ...], value: float) -> nnx.Param:
    """A float32 parameter that starts at one value everywhere (norm scales, biases)."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


def stack_layers(make: Callable[[nnx.Rngs], Layer], num_layers: int, rngs: nnx.Rngs) -> Layer:
    """One module whose parameters carry a leading `layers` axis, each layer with its own key."""
    stacked = nnx.vmap(make)(rngs.split(num_layers))
    for _, variable in nnx.iter_graph(stacked):
        if isinstance(variable, nnx.Param):
            variable.set_metadata(axes=("layers", *variable.get_metadata("axes")))
    return stacked


# What the backward pass may keep of a layer beside its input: `minimal` keeps matrix products and `offload` sends them
# to the host's memory, `full` computes everything again.
_POLICIES = {
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def run_layers(
    layers: nnx.Module,
    body: Callable[[Any, Any, Any], tuple[Any, Any]],
    carry: Any,
    per_layer: Any = None,
    *,
    remat: str = "none",
    scan: bool = True,
    dtype: Any = None,
) -> tuple[Any, Any]:
    """Applies `body(layer, carry, x) -> carry, y` layer after layer.

    Args:
        layers: a module from `stack_layers`.
        carry: goes through all layers.
        per_layer: pytree with a leading layer axis, handed out slice by slice (caches).
        remat: `none`, `minimal`, `offload` or `full` rematerialisation of each layer in the backward pass.
        scan: one compiled body under `lax.scan`; False unrolls, which compiles longer and runs faster on a CPU.
        dtype: in which a scan reads the weights and stacks their gradients. Compilers convert all layers' weights
            before the loop anyway, where the body does it; gradients would still be stacked in float32.

    Returns:
        The last carry, and the `y` of all layers stacked.
    """
    graph, state = nnx.split(layers)
    updates = has_updates(state)
    if scan and dtype is not None:
        state = jax.tree.map(partial(_convert, dtype), state, is_leaf=lambda node: isinstance(node, nnx.Variable))

    def step(carry: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        layer_state, x = inputs
        if updates:
            layer_state = nnx.State(update_layer(nnx.to_pure_dict(layer_state)))
        return body(nnx.merge(graph, layer_state), carry, x)

    if remat != "none":
        step = jax.checkpoint(step, policy=_POLICIES[remat], prevent_cse=not scan)
    if scan:
        return jax.lax.scan(step, carry, (state, per_layer))
    outputs = []
    for index in range(jax.tree.leaves(state)[0].shape[0]):
        carry, y = step(carry, jax.tree.map(lambda leaf, i=index: leaf[i], (state, per_layer)))
        outputs.append(y)
    return carry, jax.tree.map(lambda *ys: jnp.stack(ys), *outputs)


def _convert(dtype: Any, variable: nnx.Variable) -> nnx.Variable:
    """Norms, biases and routers, which compute in float32, stay."""
    is_matrix = "small" not in variable.get_metadata("axes")
    return variable.replace(variable[...].astype(dtype)) if is_matrix else variable
