"""One table maps the logical axes of parameters and activations to mesh axes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

# Logical axis -> mesh axis or axes; None = replicated. A weight names each of its dimensions after one of these.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),  # rows of the timeline, pools of media
    "length": None,  # timeline positions
    "embed": "fsdp",  # the trunk's width: parameters are gathered where they are used
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
        ValueError: a dimension is not divisible by its mesh axes.
    """

    def one(path: tuple, leaf: ParamAxes) -> NamedSharding:
        for name, size in zip(leaf.names, leaf.shape, strict=True):
            ways = 1
            for axis in mesh_axes(name):
                ways *= mesh.shape[axis]
            if size % ways:
                raise ValueError(
                    f"{jax.tree_util.keystr(path)}: dimension {name!r} of size {size} does not divide over {ways} "
                    f"devices of mesh axis {mesh_axes(name)}: lower --config.mesh.{mesh_axes(name)[-1]} or make the "
                    f"size a multiple of {ways}"
                )
        return NamedSharding(mesh, leaf.spec)

    return jax.tree_util.tree_map_with_path(one, axes_tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over `data` and `fsdp`; holds for every [B, ...] and [G, ...] field of a batch."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def constrain(x: Shaped[Array, "..."], *names: str) -> Shaped[Array, "..."]:
    """Pins an activation to the rule table when a mesh is set (`jax.set_mesh`); without one it does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, ParamAxes(names, x.shape).spec)
