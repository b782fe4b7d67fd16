"""Which parameters move, and which decay."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from omni_jax.config import OptimizerConfig
from omni_jax.errors import ConfigError
from omni_jax.training.optimizer import first_steps, learning_rate_schedule, make_optimizer, trainable_mask

CFG = OptimizerConfig(learning_rate=0.1, warmup_steps=2, weight_decay=0.5)
PARAMS = {"trunk": {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}, "head": {"kernel": jnp.ones((2, 2))}}
MATRICES = jax.tree.map(lambda leaf: leaf.ndim > 1, PARAMS)
ALL = first_steps(PARAMS, ("",))


def apply(optimizer, state, grads, params):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def test_warmup_then_cosine_to_the_final_fraction():
    rate = learning_rate_schedule(CFG, 10)
    values = [float(rate(step)) for step in range(11)]
    assert 0 < values[0] < values[1] < values[2] == pytest.approx(0.1)
    assert values[10] == pytest.approx(0.1 * CFG.final_fraction)
    assert all(later < earlier for earlier, later in itertools.pairwise(values[2:]))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_decay_follows_the_rate(name):
    """Without a gradient a matrix shrinks by rate x decay a step, and nothing else moves."""
    cfg = dataclasses.replace(CFG, name=name)
    optimizer = make_optimizer(cfg, 10, MATRICES, ALL, matrix_dimensions(PARAMS))
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(3):
        before = params
        params, state = apply(optimizer, state, jax.tree.map(jnp.zeros_like, PARAMS), params)
        rate = float(learning_rate_schedule(cfg, 10)(step))
        expected = before["trunk"]["kernel"] * (1 - rate * cfg.weight_decay)
        np.testing.assert_allclose(params["trunk"]["kernel"], expected, rtol=1e-5)
        np.testing.assert_array_equal(params["trunk"]["scale"], PARAMS["trunk"]["scale"])


def matrix_dimensions(params):
    dimensions = optax.contrib.MuonDimensionNumbers()
    return jax.tree.map(lambda leaf: dimensions if leaf.ndim > 1 else None, params)


def test_frozen_parameters_stay_and_have_no_moments():
    optimizer = make_optimizer(CFG, 10, MATRICES, first_steps(PARAMS, ("head",)))
    state = optimizer.init(PARAMS)
    params, state = apply(optimizer, state, jax.tree.map(jnp.ones_like, PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, params["trunk"], PARAMS["trunk"])
    assert np.all(params["head"]["kernel"] < 1)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert shapes.count((2, 2)) == 2, "two moments of the head, none of the trunk"


def test_what_is_frozen_for_some_steps_then_starts_as_a_run_of_its_own():
    late = make_optimizer(CFG, 10, MATRICES, first_steps(PARAMS, ("head", "trunk@3")))
    alone = make_optimizer(CFG, 7, MATRICES, first_steps(PARAMS, ("trunk",)))
    grads = jax.tree.map(lambda leaf: 0.3 * leaf, PARAMS)
    params, state, seen = PARAMS, late.init(PARAMS), []
    for _ in range(6):
        params, state = apply(late, state, grads, params)
        seen.append(params)
    for held in seen[:3]:
        jax.tree.map(np.testing.assert_array_equal, held["trunk"], PARAMS["trunk"])
        assert np.all(held["head"]["kernel"] < 1)
    params, state = PARAMS, alone.init(PARAMS)
    for held in seen[3:]:
        params, state = apply(alone, state, grads, params)
        jax.tree.map(np.testing.assert_array_equal, held["trunk"], params["trunk"])


def test_a_step_to_start_from_must_be_one_of_the_run():
    with pytest.raises(ConfigError, match=r"@10, training\.steps=10: want an earlier step"):
        make_optimizer(CFG, 10, MATRICES, first_steps(PARAMS, ("trunk@10",)))
    with pytest.raises(ConfigError, match="'trunk@soon': want PREFIX@STEP"):
        first_steps(PARAMS, ("trunk@soon",))


def test_only_what_the_mask_names_decays():
    optimizer = make_optimizer(CFG, 10, MATRICES, ALL)
    params, _ = apply(optimizer, optimizer.init(PARAMS), jax.tree.map(jnp.zeros_like, PARAMS), PARAMS)
    assert np.all(params["trunk"]["kernel"] < 1)
    np.testing.assert_array_equal(params["trunk"]["scale"], PARAMS["trunk"]["scale"])


def test_a_prefix_is_a_whole_path_part():
    mask = trainable_mask({"head": jnp.ones(1), "header": jnp.ones(1)}, ("head",))
    assert mask == {"head": True, "header": False}


def test_a_prefix_that_nothing_has_is_an_error():
    with pytest.raises(ConfigError, match=r"'tail'.*\['head', 'trunk'\]"):
        trainable_mask(PARAMS, ("head", "tail"))
