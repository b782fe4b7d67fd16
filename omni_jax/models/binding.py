"""Modules as pure functions of (configuration, parameters): parameters are plain nested dicts outside `models`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import jax
from flax import nnx
from jaxtyping import Array, PRNGKeyArray, Shaped

from omni_jax.nn.low_rank import has_updates, update_direct
from omni_jax.parallel.sharding import ParamAxes

Params = dict[str, Any]  # nested, string keys, float32 arrays; layers stacked on a leading axis
# Drawing the parameters takes a second, optimising the program that draws them a quarter of a minute on a CPU.
RUNS_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
Model = TypeVar("Model", bound=nnx.Module)


@lru_cache
def _abstract(model: type[nnx.Module], cfg: Any) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: model(cfg, nnx.Rngs(0))))


def init_params(model: type[nnx.Module], cfg: Any, key: PRNGKeyArray | Shaped[Array, "..."]) -> Params:
    """Fresh parameters of `model(cfg, rngs)`. Pure: jit it with `out_shardings` to create them in place."""
    return nnx.to_pure_dict(nnx.state(model(cfg, nnx.Rngs(params=key))))


def param_axes(model: type[nnx.Module], cfg: Any) -> dict[str, Any]:
    """The same tree with `ParamAxes` leaves: the logical axes and the shape of every parameter."""
    return nnx.to_pure_dict(
        jax.tree.map(
            lambda variable: ParamAxes(variable.get_metadata("axes"), variable.shape),
            _abstract(model, cfg)[1],
            is_leaf=lambda node: isinstance(node, nnx.Variable),
        )
    )


def bind(model: type[Model], cfg: Any, params: Params) -> Model:
    """The module over the given parameters; costs only host time, inside `jit` none at run time.

    But for low-rank updates, which are added to their matrices here; those of layers when their layer runs.
    """
    if has_updates(params):
        params = update_direct(params, param_axes(model, cfg))
    return nnx.merge(_abstract(model, cfg)[0], nnx.State(params))
