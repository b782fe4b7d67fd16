"""One table maps the logical axes of parameters and activations to mesh axes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from omni_jax.errors import ConfigError

# Logical axis -> mesh axis or axes; None = replicated. A weight names each of its dimensions after one of these.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp", "expert"),  # rows of the timeline, pools of media
    "length": "context",  # timeline positions
    "embed": ("fsdp", "expert"),  # the trunk's width: parameters are gathered where they are used
    "expert_embed": "fsdp",  # the same width in a weight that is split by experts already
    "embed_out": None,  # a second width in one weight
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "vocab": "tensor",
    "codebook": None,
    "expert": "expert",
    "layers": None,
    "small": None,  # biases, kernels, positions: not worth a collective
}


@dataclass(frozen=True)
class ParamAxes:
    """Logical axis names of one parameter, beside its shape. A pytree leaf.

    Raises:
        ValueError: the rank differs from the number of names, a name has no rule, or two names of one parameter
            map to the same mesh axis.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shape):
            raise ValueError(
                f"parameter of shape {self.shape} has {len(self.names)} logical axes {self.names}: name every dimension"
            )
        used = Counter(axis for name in self.names for axis in mesh_axes(name))
        twice = [axis for axis, count in used.items() if count > 1]
        if twice:
            raise ValueError(
                f"logical axes {self.names} of a parameter use the mesh axis {twice[0]!r} twice: rename one of them to "
                "an axis with another rule in omni_jax/parallel/sharding.py:RULES (for example embed_out)"
            )

    @property
    def spec(self) -> PartitionSpec:
        return PartitionSpec(*(RULES[name] for name in self.names))


def mesh_axes(name: str) -> tuple[str, ...]:
    """The mesh axes behind a logical axis."""
    if name not in RULES:
        raise ValueError(
            f"logical axis {name!r} has no rule: want one of {', '.join(RULES)}; add it to "
            "omni_jax/parallel/sharding.py:RULES"
        )
    rule = RULES[name]
    return () if rule is None else (rule,) if isinstance(rule, str) else rule


def param_shardings(mesh: Mesh, axes_tree: Any) -> Any:
    """The `NamedSharding` of every `ParamAxes` leaf.

    Raises:
        ConfigError: a dimension is not divisible by its mesh axes.
    """

    def one(path: tuple, leaf: ParamAxes) -> NamedSharding:
        for name, size in zip(leaf.names, leaf.shape, strict=True):
            ways = 1
            for axis in mesh_axes(name):
                ways *= mesh.shape[axis]
            if size % ways:
                raise ConfigError(
                    f"{jax.tree_util.keystr(path)}: dimension {name!r} of size {size} does not divide over {ways} "
                    f"devices of mesh axis {mesh_axes(name)}: lower --config.mesh.{mesh_axes(name)[-1]} or make the "
                    f"size a multiple of {ways}"
                )
        return NamedSharding(mesh, leaf.spec)

    return jax.tree_util.tree_map_with_path(one, axes_tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over `data`, `fsdp` and `expert`; holds for every [B, ...] and [G, ...] field of a batch."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def spec(*names: str) -> PartitionSpec:
    """The `PartitionSpec` of an activation with these logical axes."""
    return PartitionSpec(*(RULES[name] for name in names))


def platform() -> str:
    """Where the program will run: the platform of the mesh that is set, which may be one that is only planned for."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def on_shards(
    function: Callable[..., Any], in_axes: Sequence[Any], out_axes: Sequence[tuple[str, ...]]
) -> Callable[..., Any]:
    """`function` run by every device on its own shards (`jax.shard_map`); arguments and results by logical axes.

    What of `in_axes` is no tuple of names is a tree of `PartitionSpec`s.

    Without a mesh it runs on the whole arrays; `axis_size` is then 1 for every axis, so collectives that ask for it
    first fall away.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function
    in_specs = tuple(spec(*axes) if isinstance(axes, tuple) else axes for axes in in_axes)
    out_specs = tuple(spec(*names) for names in out_axes)
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def axis_size(*axes: str) -> int:
    """Devices along mesh axes; 1 where no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def gather_shards(x: Shaped[Array, "..."], axes: tuple[str, ...], dimension: int) -> Shaped[Array, "..."]:
    """The whole `dimension` from the shards on `axes`, inside `on_shards`; its gradient is a reduce-scatter."""
    axes = tuple(axis for axis in axes if axis_size(axis) > 1)
    if not axes:
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jax.lax.all_gather(x, axes, axis=dimension, tiled=True)
    return _gather(x, axes, dimension)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: Array, axes: tuple[str, ...], dimension: int) -> Array:
    return jax.lax.all_gather(x, axes, axis=dimension, tiled=True)


def _scatter(axes: tuple[str, ...], dimension: int, _: None, gradient: Array) -> tuple[Array]:
    for axis in axes:
        for groups in _scatter_stages(axis_size(axis)):
            gradient = jax.lax.psum_scatter(
                gradient, axis, scatter_dimension=dimension, tiled=True, axis_index_groups=groups
            )
    return (gradient,)


_gather.defvjp(lambda x, axes, dimension: (_gather(x, axes, dimension), None), _scatter)


def _scatter_stages(size: int) -> list[list[list[int]] | None]:
    """Groups of the reduce-scatters that follow each other; None is one over all.

    The TPU compiler has no reduce-scatter over all three axes of a torus and makes an all-reduce of it, at twice the
    bytes. Over a plane and then over a line it has, and together they move what one would. The line is the last axis of
    the torus, which is the longest: 4 of 2x2x4, 8 of 4x4x8.
    """
    line = 2 ** ((size.bit_length() + 1) // 3)
    if platform() != "tpu" or size < 8 or size % line:
        return [None]
    places = np.arange(size).reshape(-1, line)
    return [places.T.tolist(), places.tolist()]


def sum_shards(x: Shaped[Array, "..."], axis: str) -> Shaped[Array, "..."]:
    """The sum over a mesh axis, inside `on_shards`."""
    return x if axis_size(axis) == 1 else jax.lax.psum(x, axis)


def constrain(x: Shaped[Array, "..."], *names: str) -> Shaped[Array, "..."]:
    """Pins an activation to the rule table when a mesh is set (`jax.set_mesh`); without one it does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, ParamAxes(names, x.shape).spec)
