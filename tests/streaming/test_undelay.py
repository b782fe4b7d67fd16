"""Codes emitted in the delayed pattern come out as whole frames."""

import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.streaming.undelay import init_undelay, undelay_step


def _delayed(frames: np.ndarray, delay: int) -> np.ndarray:
    """[T, Q] -> [T + delay, Q]: the acoustic codebooks move `delay` steps back; -7 fills what nobody may read."""
    out = np.full((len(frames) + delay, frames.shape[1]), -7)
    out[: len(frames), 0] = frames[:, 0]
    out[delay:, 1:] = frames[:, 1:]
    return out


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_recovers_the_frames(delay):
    frames = np.arange(6 * 4).reshape(6, 4)
    state, whole = init_undelay(1, delay), []
    for codes in _delayed(frames, delay):
        state, aligned, ready = undelay_step(state, jnp.asarray(codes)[None], jnp.array([True]))
        if ready[0]:
            whole.append(np.asarray(aligned[0]))
    np.testing.assert_array_equal(whole, frames)


def test_a_row_that_waits_keeps_its_place():
    frames = np.arange(4 * 3).reshape(4, 3)
    emitted = _delayed(frames, 1)
    state, position, whole = init_undelay(2, 1), [0, 0], ([], [])
    for moves in ([True, False], [True, True], [False, True], [True, True], [True, True], [True, True]):
        codes = jnp.asarray(np.stack([emitted[place] for place in position]))
        state, aligned, ready = undelay_step(state, codes, jnp.array(moves))
        for row in range(2):
            if ready[row]:
                whole[row].append(np.asarray(aligned[row]))
            position[row] += moves[row]
    np.testing.assert_array_equal(whole[0], frames)
    np.testing.assert_array_equal(whole[1], frames)
