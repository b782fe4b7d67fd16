"""The rule table, and a sharded step against a single device."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from models.tiny import dialogue, model_params, with_transformer

from omni_jax.config import LossConfig, MeshConfig
from omni_jax.errors import ConfigError
from omni_jax.models import omni
from omni_jax.nn import moe
from omni_jax.parallel import sharding
from omni_jax.parallel.context import balance
from omni_jax.parallel.mesh import AXES, make_mesh, mesh_shape
from omni_jax.parallel.sharding import ParamAxes, batch_sharding, param_shardings
from omni_jax.planning.topology import topology_devices
from omni_jax.training.losses import omni_loss

PARITY = 1e-5  # of the loss, and of each gradient's norm
SCALAR_PARITY = 2e-5  # of the gradient of a lone number: a namer's log_scale was 1.2e-5 off on one CPU
ROUTER_MARGIN = 1e-4  # below, rounding may send a position elsewhere


def test_the_rest_of_the_devices_go_to_the_open_axis():
    assert mesh_shape(MeshConfig(data=2, fsdp=-1, tensor=2), 8) == (2, 2, 1, 1, 2)


@pytest.mark.parametrize(
    "mesh, message",
    [
        (MeshConfig(fsdp=-1, tensor=3), "8 devices are not a multiple of 3"),
        (MeshConfig(fsdp=2), "wants 2 devices but there are 8"),
        (MeshConfig(data=-1, fsdp=-1), "at most one -1"),
        (MeshConfig(fsdp=0), "positive sizes"),
    ],
)
def test_impossible_meshes_are_refused(mesh, message):
    with pytest.raises(ConfigError, match=message):
        mesh_shape(mesh, 8)


def test_the_table_gives_specs():
    axes = ParamAxes(("layers", "expert", "expert_embed", "mlp"), (2, 4, 8, 8))
    assert axes.spec == PartitionSpec(None, "expert", "fsdp", "tensor")


def test_wrong_axes_are_refused():
    with pytest.raises(ValueError, match="name every dimension"):
        ParamAxes(("embed",), (2, 3))
    with pytest.raises(ValueError, match="'fsdp' twice"):
        ParamAxes(("embed", "embed"), (2, 2))
    with pytest.raises(ValueError, match="has no rule"):
        ParamAxes(("embde",), (2,))


def test_a_size_that_does_not_divide_names_parameter_and_flag():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=4))
    with pytest.raises(ValueError, match=r"\['w'\].*'heads' of size 6.*--config.mesh.tensor"):
        param_shardings(mesh, {"w": ParamAxes(("embed", "heads"), (8, 6))})


def test_a_reduce_scatter_over_a_plane_and_a_line_is_the_one_over_all(monkeypatch):
    mesh, spec = make_mesh(MeshConfig(fsdp=8)), PartitionSpec("fsdp")
    x = jax.random.normal(jax.random.key(0), (8, 16, 3))

    def scattered(x):
        gather = partial(sharding.gather_shards, axes=("fsdp",), dimension=0)
        one = jax.shard_map(lambda part: jax.vjp(gather, part[0, :2])[1](part[0])[0], in_specs=spec, out_specs=spec)
        with jax.set_mesh(mesh):
            return jax.jit(one)(x)

    once = scattered(x)
    np.testing.assert_allclose(once, x.sum(0), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(sharding, "platform", lambda: "tpu")
    assert len(sharding._scatter_stages(8)) == 2
    np.testing.assert_allclose(scattered(x), once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "line"), [(8, 2), (16, 4), (32, 4), (64, 4), (128, 8), (256, 8), (512, 8)])
def test_the_line_is_the_longest_axis_of_a_torus(monkeypatch, size, line):
    monkeypatch.setattr(sharding, "platform", lambda: "tpu")
    planes, lines = sharding._scatter_stages(size)
    assert lines[0] == list(range(line))
    assert planes[0] == list(range(0, size, line))


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu to describe a torus")
@pytest.mark.parametrize("axes", [{"tensor": 2, "fsdp": 32}, {"expert": 8, "fsdp": 8}])
def test_an_axis_may_take_a_part_of_a_torus_axis(axes):
    assert make_mesh(MeshConfig(**axes), topology_devices("v5p:4x4x4")).size == 64


def loss(cfg, params, batch):
    batch = balance(batch)
    output = omni.apply(cfg, params, batch)
    weights = LossConfig(text_z=0.01, load_balance=0.1, router_z=0.1, ctc=0.0)
    heads = omni.text_projection(cfg, params), omni.code_heads(cfg, params)
    return omni_loss(weights, output, batch, *heads, cfg.audio.ctc_subframes)


def gradients(cfg, params, batch):
    return jax.value_and_grad(loss, argnums=1, has_aux=True)(cfg, params, batch)


def smallest_margin(params, batch):
    """Between the last expert chosen and the first one left out, over all positions and expert layers."""

    def smallest(params, batch):
        margins = []

        def spy(cfg, logits, bias):
            ordered = jnp.sort(logits, axis=-1)
            margins.append(jnp.min(ordered[..., -cfg.experts_per_token] - ordered[..., -cfg.experts_per_token - 1]))
            return ROUTE(cfg, logits, bias)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moe, "route", spy)
            omni.apply(with_transformer(scan_layers=False), params, batch)
        return jnp.min(jnp.stack(margins))

    return float(jax.jit(smallest)(params, batch))


ROUTE = moe.route


def assert_same_gradient(path, found, expected):
    """The gradient of a lone number sums over all positions and may nearly cancel."""
    off = float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12))
    assert off <= (PARITY if found.size > 1 else SCALAR_PARITY), (jax.tree_util.keystr(path), off)


@pytest.fixture(scope="module")
def single():
    params = model_params()
    batch = dialogue(frames=10, rows=8, seed=15)  # no gradient of a scalar nearly cancels
    assert smallest_margin(params, batch) > ROUTER_MARGIN
    return params, batch, jax.jit(gradients, static_argnums=0)(with_transformer(moe_dispatch="sorted"), params, batch)


@pytest.mark.parametrize(
    "mesh_config",
    [
        MeshConfig(data=8, fsdp=1),
        MeshConfig(fsdp=8),
        MeshConfig(expert=4, data=2, fsdp=1),
        MeshConfig(tensor=2, fsdp=4),
        MeshConfig(context=4, data=2, fsdp=1),
        MeshConfig(fsdp=2, expert=2, tensor=2),
        MeshConfig(fsdp=2, expert=2, context=2),
    ],
    ids=lambda mesh: "-".join(f"{axis}{getattr(mesh, axis)}" for axis in AXES if abs(getattr(mesh, axis)) > 1),
)
def test_sharded_equals_single_device(mesh_config, single):
    params, batch, ((expected_loss, expected_terms), expected) = single
    cfg = with_transformer(moe_dispatch="sorted")
    mesh = make_mesh(mesh_config)
    shardings = param_shardings(mesh, omni.param_axes(cfg))
    rows = jax.tree.map(lambda _: batch_sharding(mesh), batch)
    step = jax.jit(
        lambda params, batch: gradients(cfg, params, batch),
        in_shardings=(shardings, rows),
        out_shardings=(None, shardings),
    )
    with jax.set_mesh(mesh):
        (value, terms), found = step(params, batch)
    np.testing.assert_allclose(value, expected_loss, rtol=PARITY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), terms, expected_terms)
    jax.tree.map_with_path(assert_same_gradient, found, expected)
    router, gate = (found["transformer"]["sparse"]["moe"][name] for name in ("router", "gate"))
    assert float(jnp.linalg.norm(router)) > 0
    if mesh.shape["fsdp"] * mesh.shape["expert"] > 1:
        assert gate.addressable_shards[0].data.size < gate.size


def test_balance_losses_teach_the_router(single):
    params, batch, _ = single

    def balance(params):
        stats = omni.apply(with_transformer(moe_dispatch="sorted"), params, batch).moe
        return stats.load_balance_loss + stats.router_z_loss

    gradient = jax.jit(jax.grad(balance))(params)["transformer"]["sparse"]["moe"]["router"]
    assert float(jnp.linalg.norm(gradient)) > 0
