"""The omni model's optimizer, and where each part of its training state lies."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import optax
import optax.contrib
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import Config
from omni_jax.models import omni
from omni_jax.nn.low_rank import M
from omni_jax.parallel.sharding import ParamAxes, param_shardings
from omni_jax.training.guard import new_guard
from omni_jax.training.optimizer import FROZEN, first_steps, make_optimizer, parameter_path
from omni_jax.training.state import TrainState


def omni_optimizer(config: Config) -> optax.GradientTransformation:
    """Weight decay on everything with two or more dimensions that are not the layer stack, except embeddings and the
    magnitudes of low-rank updates.

    The routers' balancing biases are not the optimizer's: the step moves them.
    """
    axes = omni.param_axes(config.model)
    decay = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            len([name for name in leaf.names if name != "layers"]) > 1
            and not _is_embedding(path)
            and not parameter_path(path).endswith(M)
        ),
        axes,
    )
    router_bias = jax.tree_util.DictKey("router_bias")
    first = jax.tree_util.tree_map_with_path(
        lambda path, step: FROZEN if path[-1] == router_bias else step, first_steps(axes, config.training.trainable)
    )
    matrices = jax.tree_util.tree_map_with_path(_matrix, axes)
    return make_optimizer(config.optimizer, config.training.steps, decay, first, matrices)


def _matrix(path: tuple[Any, ...], leaf: ParamAxes) -> optax.contrib.MuonDimensionNumbers | None:
    """Which dimensions of a weight are inputs and which outputs, where it is a matrix inside the model.

    Embeddings and heads, whose rows stand for tokens, are not orthogonalised (arXiv 2502.16982 section 2.2).
    """
    dims = [index for index, name in enumerate(leaf.names) if name not in ("layers", "expert", "codebook")]
    if len(dims) < 2 or "small" in leaf.names or "vocab" in leaf.names or _is_embedding(path):
        return None
    inputs = dims[:-1] if leaf.names[dims[0]] == "heads" else dims[:1]
    return optax.contrib.MuonDimensionNumbers(tuple(inputs), tuple(dims[len(inputs) :]))


def _is_embedding(path: tuple[Any, ...]) -> bool:
    return any("embed" in jax.tree_util.keystr((key,)) for key in path)


def abstract_state(config: Config, mesh: Mesh, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, dtypes and shardings: parameters by the rule table, moments like them, the rest everywhere."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: Any, sharding: NamedSharding = everywhere) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    key = jax.eval_shape(lambda: jax.random.key(0))
    shardings = param_shardings(mesh, omni.param_axes(config.model))
    params = jax.tree.map(placed, jax.eval_shape(partial(omni.init_params, config.model), key), shardings)
    owners = dict(jax.tree_util.tree_leaves_with_path(params))

    def slot(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        """The optimizer's path to a moment ends with the path of its parameter."""
        owner = next((owners[path[start:]] for start in range(len(path)) if path[start:] in owners), None)
        return placed(leaf) if owner is None else placed(leaf, _slot_sharding(leaf.shape, owner))

    opt_state = jax.tree_util.tree_map_with_path(slot, jax.eval_shape(optimizer.init, params))
    guard = jax.tree.map(placed, jax.eval_shape(new_guard))
    return TrainState(params, opt_state, placed(jax.ShapeDtypeStruct((), "int32")), placed(key), guard)


def _slot_sharding(shape: tuple[int, ...], param: jax.ShapeDtypeStruct) -> NamedSharding:
    """A moment lies like its parameter; a factored one (Adafactor's) like the dimensions that are left of it."""
    spec = param.sharding.spec
    if shape == param.shape:
        return param.sharding
    for gone in range(len(param.shape)):
        if shape == param.shape[:gone] + param.shape[gone + 1 :]:
            return NamedSharding(param.sharding.mesh, PartitionSpec(*spec[:gone], *spec[gone + 1 :]))
    return NamedSharding(param.sharding.mesh, PartitionSpec())
