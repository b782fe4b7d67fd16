import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.model_config import TransformerConfig
from omni_jax.nn.moe import MoE, route, router_stats

EXACT = 1e-5
DIM, WIDTH, EXPERTS, TOP = 8, 12, 4, 2


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(1), (2, 7, DIM)), jnp.asarray([[True] * 7, [True] * 3 + [False] * 4])


def config(**changes):
    shape = {"embed_dim": DIM, "expert_dim": WIDTH, "num_experts": EXPERTS, "experts_per_token": TOP}
    return TransformerConfig(**(shape | changes))


def moe(dispatch, **changes):
    return MoE(config(moe_dispatch=dispatch, **changes), nnx.Rngs(0))


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
    real, none = jnp.ones(8, bool), jnp.zeros(8)
    even = jnp.stack([jnp.arange(8) % 4, (jnp.arange(8) + 1) % 4], axis=1)
    balanced = router_stats(jnp.zeros((8, 4)), jnp.full((8, 4), 0.25), even, real, none)
    assert float(balanced.load_balance_loss) == pytest.approx(1.0, abs=EXACT)
    assert float(balanced.router_entropy) == pytest.approx(np.log(4), abs=EXACT)
    logits = jnp.broadcast_to(jnp.asarray([[9.0, 9.0, 0, 0]]), (8, 4))
    skewed = router_stats(logits, jax.nn.softmax(logits), even * 0, real, none)
    assert float(skewed.load_balance_loss) > 1.9


def test_no_real_position_gives_zeros_not_nan(inputs):
    _, stats = moe("dense")(inputs[0], jnp.zeros_like(inputs[1]))
    assert all(float(jnp.sum(leaf)) == 0.0 for leaf in stats)


def test_a_sigmoid_router_normalises_the_scores_of_the_chosen():
    logits = jnp.asarray([[2.0, -1.0, 0.5, -3.0]])
    gates, chosen, probs = route(config(router="sigmoid"), logits, None)
    scores = 1 / (1 + np.exp(-np.asarray([2.0, 0.5])))
    np.testing.assert_array_equal(chosen[0], [0, 2])
    np.testing.assert_allclose(gates[0], scores / scores.sum(), rtol=EXACT)
    assert float(probs.sum()) == pytest.approx(1.0, abs=EXACT)


def test_a_bias_moves_the_choice_and_not_the_gates():
    logits = jnp.asarray([[2.0, 1.0, 0.0, -1.0]])
    gates, chosen, _ = route(config(), logits, jnp.asarray([0.0, -9.0, 0.0, 9.0]))
    np.testing.assert_array_equal(chosen[0], [3, 0])
    both = np.exp([-1.0, 2.0])
    np.testing.assert_allclose(gates[0], both / both.sum(), rtol=EXACT)


def test_a_position_is_held_to_its_best_groups():
    logits = jnp.asarray([[3.0, -9.0, 2.0, 1.0]])  # the second pair is the better one together
    _, chosen, _ = route(config(router_groups=(2, 1), router="sigmoid"), logits, None)
    np.testing.assert_array_equal(chosen[0], [2, 3])


def test_shared_experts_see_every_position(inputs):
    layer = moe("sorted", num_shared_experts=2)
    routed = dense_loop(layer, inputs[0])
    np.testing.assert_allclose(layer(*inputs)[0], routed + layer.shared(inputs[0]), atol=EXACT)
    assert layer.shared.gate.kernel.shape == (DIM, 2 * WIDTH)
