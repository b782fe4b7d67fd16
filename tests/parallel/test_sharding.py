"""The rule table, and a sharded step against a single device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from models.tiny import MODEL, dialogue, model_params, with_transformer

from omni_jax.config import ConfigError, MeshConfig
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh, mesh_shape
from omni_jax.parallel.sharding import ParamAxes, batch_sharding, param_shardings

PARITY = 5e-5


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
    axes = ParamAxes(("layers", "expert", "embed", "mlp"), (2, 4, 8, 8))
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


def loss(cfg, params, batch):
    output = omni.apply(cfg, params, batch)
    targets = jnp.asarray(batch.timeline.text_target)[..., None]
    logits = jax.nn.log_softmax(omni.text_logits(cfg, params, output.hidden))
    parts = [jnp.mean(jnp.square(x)) for x in (output.codes_logits, output.semantic_logits, output.ctc_logits)]
    parts += [jnp.mean(jnp.square(output.turn_logits)), jnp.mean(jnp.square(output.vad_logits))]
    parts += [output.moe.load_balance_loss, output.moe.router_z_loss]
    return sum(parts) - jnp.mean(jnp.take_along_axis(logits, targets, axis=-1))


@pytest.fixture(scope="module")
def single():
    params = model_params()
    batch = dialogue(frames=6, rows=8)
    return params, batch, jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)(MODEL, params, batch)


@pytest.mark.parametrize(
    "mesh_config, dispatch",
    [
        (MeshConfig(data=2, fsdp=4), "sorted"),
        (MeshConfig(fsdp=2, expert=2, tensor=2), "dense"),
    ],
)
def test_sharded_equals_single_device(mesh_config, dispatch, single):
    params, batch, (expected_loss, expected) = single
    cfg = with_transformer(moe_dispatch=dispatch)
    mesh = make_mesh(mesh_config)
    shardings = param_shardings(mesh, omni.param_axes(cfg))
    rows = jax.tree.map(lambda _: batch_sharding(mesh), batch)
    step = jax.jit(
        lambda params, batch: jax.value_and_grad(lambda p: loss(cfg, p, batch))(params),
        in_shardings=(shardings, rows),
        out_shardings=(None, shardings),
    )
    with jax.set_mesh(mesh):
        value, gradients = step(params, batch)
    np.testing.assert_allclose(value, expected_loss, rtol=PARITY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=PARITY), gradients, expected)
    gate = gradients["transformer"]["sparse"]["moe"]["gate"]
    assert gate.addressable_shards[0].data.size < gate.size
