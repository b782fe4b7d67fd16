import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.nn.moe import MoE, router_stats

EXACT = 1e-5
DIM, WIDTH, EXPERTS, TOP = 8, 12, 4, 2


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(1), (2, 7, DIM)), jnp.asarray([[True] * 7, [True] * 3 + [False] * 4])


def moe(dispatch):
    return MoE(DIM, WIDTH, EXPERTS, TOP, dispatch, nnx.Rngs(0))


def dense_loop(layer, x):
    """Expert after expert, position after position, in float64."""
    gate, up, down, router = (np.asarray(w[...], np.float64) for w in (layer.gate, layer.up, layer.down, layer.router))
    x = np.asarray(x, np.float64)
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape[:2]):
        logits = x[place] @ router
        probs = np.exp(logits) / np.exp(logits).sum()
        chosen = np.argsort(-probs)[:TOP]
        for expert in chosen:
            hidden = x[place] @ gate[expert]
            hidden = hidden / (1 + np.exp(-hidden)) * (x[place] @ up[expert])
            out[place] += probs[expert] / probs[chosen].sum() * (hidden @ down[expert])
    return out


@pytest.mark.parametrize("dispatch", ["dense", "sorted"])
def test_equals_a_loop_over_experts(dispatch, inputs):
    layer = moe(dispatch)
    np.testing.assert_allclose(layer(*inputs)[0], dense_loop(layer, inputs[0]), atol=EXACT)


def test_both_dispatches_have_the_same_gradients(inputs):
    def gradient(dispatch):
        graph, state = nnx.split(moe(dispatch))

        def loss(state, x):
            y, stats = nnx.merge(graph, state)(x, inputs[1])
            return jnp.sum(jnp.sin(y)) + stats.load_balance_loss + stats.router_z_loss

        return jax.grad(loss, argnums=(0, 1))(nnx.to_pure_dict(state), inputs[0])

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=EXACT), gradient("dense"), gradient("sorted"))


def test_statistics_count_real_positions_only(inputs):
    x, real = inputs
    layer = moe("dense")
    noise = jnp.where(real[:, :, None], 0.0, 100.0)
    _, stats = layer(x, real)
    _, disturbed = layer(x + noise, real)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=EXACT), stats, disturbed)
    assert float(jnp.sum(stats.expert_share)) == pytest.approx(1.0, abs=EXACT)
    assert float(stats.router_z_loss) > 0


def test_load_balance_loss_is_one_when_even_and_grows_when_not():
    real = jnp.ones(8, bool)
    even = jnp.stack([jnp.arange(8) % 4, (jnp.arange(8) + 1) % 4], axis=1)
    balanced = router_stats(jnp.zeros((8, 4)), even, real)
    assert float(balanced.load_balance_loss) == pytest.approx(1.0, abs=EXACT)
    assert float(balanced.router_entropy) == pytest.approx(np.log(4), abs=EXACT)
    skewed = router_stats(jnp.broadcast_to(jnp.asarray([[9.0, 9.0, 0, 0]]), (8, 4)), even * 0, real)
    assert float(skewed.load_balance_loss) > 1.9


def test_no_real_position_gives_zeros_not_nan(inputs):
    _, stats = moe("dense")(inputs[0], jnp.zeros_like(inputs[1]))
    assert all(float(jnp.sum(leaf)) == 0.0 for leaf in stats)
