"""What counts as a bad step, and what it leaves behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.training.guard import SETTLING_STEPS, guarded, judge, new_guard
from omni_jax.training.state import TrainState


def after(losses, norms, factor=10.0):
    """Guard and verdict after steps with these losses and gradient norms."""
    guard, verdicts = new_guard(), []
    step = jax.jit(judge, static_argnums=3)
    for loss, norm in zip(losses, norms, strict=True):
        bad, guard = step(guard, jnp.float32(loss), jnp.float32(norm), factor)
        verdicts.append(bool(bad))
    return guard, verdicts


def usual(count):
    rng = np.random.default_rng(0)
    return list(3.0 + 0.1 * rng.standard_normal(count)), list(1.0 + 0.1 * rng.standard_normal(count))


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (3.0, np.inf), (30.0, 1.0), (3.0, 11.0)])
def test_not_finite_numbers_and_spikes_are_bad(loss, norm):
    losses, norms = usual(SETTLING_STEPS + 1)
    guard, verdicts = after([*losses, loss, 3.0], [*norms, norm, 1.0])
    assert [index for index, bad in enumerate(verdicts) if bad] == [SETTLING_STEPS + 1]
    assert (int(guard.skipped), int(guard.in_a_row)) == (1, 0)
    assert np.isfinite([guard.loss, guard.norm, guard.deviation]).all()


def test_spikes_pass_at_the_start_and_with_factor_0():
    assert not any(after([3.0, 300.0], [1.0, 100.0])[1])
    losses, norms = usual(SETTLING_STEPS + 1)
    assert not any(after([*losses, 30.0], [*norms, 30.0], factor=0.0)[1])


def test_a_lasting_change_of_level_is_accepted_soon():
    losses, norms = usual(SETTLING_STEPS + 1)
    _, verdicts = after([*losses, *[3.0] * 20], [*norms, *[30.0] * 20])
    assert verdicts[SETTLING_STEPS + 1] and not any(verdicts[-10:])


def test_a_bad_step_changes_neither_parameters_nor_optimizer_state():
    def step(state, batch):
        new = state._replace(params=state.params + batch, opt_state=state.opt_state + 1, step=state.step + 1)
        return new, {"loss": batch, "gradient_norm": jnp.float32(1.0)}

    run = jax.jit(guarded(step, 0.0))
    state = TrainState(jnp.float32(1.0), jnp.int32(5), jnp.int32(0), jax.random.key(0), new_guard())
    state, metrics = run(state, jnp.float32(np.nan))
    assert (float(state.params), int(state.opt_state), int(state.step)) == (1.0, 5, 1)
    assert (float(metrics["skipped_steps"]), float(metrics["bad_steps_in_a_row"])) == (1.0, 1.0)
    state, metrics = run(state, jnp.float32(2.0))
    assert (float(state.params), int(state.opt_state), float(metrics["bad_steps_in_a_row"])) == (3.0, 6, 0.0)
