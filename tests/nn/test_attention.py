import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.nn import attention
from omni_jax.nn.rope import apply_rotary, rotary, rotary_1d, section_of_pair

EXACT = 1e-5


def qkv(length, batch=2, heads=4, kv_heads=2, dim=8):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch, length, n, dim) for n in (heads, kv_heads, kv_heads)]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]


def naive(q, k, v, mask):
    """One head after the other, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for head in range(q.shape[2]):
        shared = head // (q.shape[2] // k.shape[2])
        logits = np.einsum("btd,bsd->bts", q[:, :, head], k[:, :, shared]) / np.sqrt(q.shape[-1])
        logits = np.where(mask, logits, -np.inf)
        probs = np.exp(logits - logits.max(-1, keepdims=True))
        out[:, :, head] = np.einsum("bts,bsd->btd", probs / probs.sum(-1, keepdims=True), v[:, :, shared])
    return out


@pytest.mark.parametrize("causal, window", [(True, None), (True, 3), (False, None)])
def test_segments_against_a_loop_over_heads(causal, window):
    q, k, v = qkv(12)
    segments = np.array([[1] * 5 + [2] * 7, [1] * 8 + [0] * 4], np.int32)
    index = np.arange(12)
    mask = segments[:, :, None] == segments[:, None, :]
    if causal:
        mask = mask & (index[:, None] >= index[None, :])
    if window:
        mask = mask & (index[:, None] - index[None, :] < window)
    out = attention.attend_segments(q, k, v, jnp.asarray(segments), causal=causal, window=window)
    np.testing.assert_allclose(out, naive(q, k, v, mask), atol=EXACT)


@pytest.mark.parametrize(
    "query_block, length, causal, window",
    [
        (4, 24, True, 5),  # code for each block
        (4, 24, True, None),
        (4, 24, False, None),  # a loop over blocks
        (1, 24, True, 5),  # too many for code
        (16, 24, True, None),  # short
    ],
)
def test_blocks_equal_one_piece(monkeypatch, query_block, length, causal, window):
    q, k, v = qkv(length, batch=1)
    segments = jnp.asarray([[1] * 10 + [2] * 10 + [0] * (length - 20)], jnp.int32)

    def loss(q, k, v):
        return jnp.sum(jnp.sin(attention.attend_segments(q, k, v, segments, causal=causal, window=window)))

    run = jax.value_and_grad(loss, argnums=(0, 1, 2))
    whole = run(q, k, v)
    monkeypatch.setattr(attention, "QUERY_BLOCK", query_block)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=EXACT), whole, run(q, k, v))


def test_rotary_depends_on_distance_only():
    q, k, _ = qkv(1, batch=1, heads=1, kv_heads=1)

    def score(query_at, key_at):
        at = [rotary_1d(jnp.full((1, 1), position), 8) for position in (query_at, key_at)]
        return float(jnp.sum(apply_rotary(q, at[0]) * apply_rotary(k, at[1])))

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


def test_sections_of_qwen3_omni():
    """24/20/20 pairs of 64, height and width on every third pair (arXiv 2509.17765)."""
    pairs = section_of_pair((24, 20, 20))
    assert np.bincount(pairs).tolist() == [24, 20, 20]
    assert pairs[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert pairs[60:].tolist() == [0, 0, 0, 0]


def test_each_coordinate_turns_its_own_pairs():
    base = rotary(jnp.zeros((1, 1, 3), jnp.int32), (4, 2, 2), 100.0)
    for coordinate in range(3):
        moved = rotary(jnp.zeros((1, 1, 3), jnp.int32).at[0, 0, coordinate].set(3), (4, 2, 2), 100.0)
        turned = np.asarray(moved.sin != base.sin)[0, 0]
        np.testing.assert_array_equal(turned, section_of_pair((4, 2, 2)) == coordinate)
