"""cuDNN's attention without a GPU: the program for one, and the numbers of the same call on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from omni_jax.nn import attention, cudnn

CLOSE = 1e-5


def inputs(dtype, length=12, batch=2, dim=8):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (batch, length, n, dim), dtype) for key, n in zip(keys, (4, 2, 2)))
    segments = jnp.asarray([[1] * 5 + [2] * (length - 5), [1] * (length - 4) + [0] * 4], jnp.int32)
    return q, k, v, segments


@pytest.mark.parametrize("causal, window", [(True, None), (True, 3), (False, None)])
def test_the_call_means_the_same_as_ours(causal, window):
    q, k, v, segments = inputs(jnp.float32)
    mask = attention.segment_mask(segments, segments, jnp.arange(12), causal, window)

    def loss(attend):
        return jax.value_and_grad(lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, mask))), argnums=(0, 1, 2))

    ours = loss(attention.attend)(q, k, v)
    theirs = loss(lambda *of: cudnn.attend_fused(*of, implementation="xla"))(q, k, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=CLOSE), ours, theirs)


@pytest.mark.parametrize(
    ("length", "causal", "calls"),
    [(12, True, 1), (64, False, 1), (64, True, 4)],  # short, loop over blocks, blocks
)
def test_a_program_for_a_gpu_has_the_kernel_forward_and_backward(monkeypatch, length, causal, calls):
    """Neither a GPU nor cuDNN is here: their presence is said, the lowering is JAX's."""
    monkeypatch.setattr(cudnn, "platform", lambda: "gpu")
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(attention, "QUERY_BLOCK", 16)
    q, k, v, segments = inputs(jnp.bfloat16, length)

    def loss(q, k, v):
        out = attention.attend_segments(q, k, v, segments, causal=causal)
        return jnp.sum(out.astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, v)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__cudnn$fmhaScaleBiasSoftmax(") >= calls
    assert text.count("@__cudnn$fmhaScaleBiasSoftmaxBackward(") == calls
    assert "exponential" not in text  # no softmax of our own is left


def test_what_the_kernel_does_not_take_stays_ours(monkeypatch):
    q, k, *_ = inputs(jnp.bfloat16)
    assert not cudnn.can_fuse(q, k)  # a CPU
    monkeypatch.setattr(cudnn, "platform", lambda: "gpu")
    assert cudnn.can_fuse(q, k)
    assert not cudnn.can_fuse(q.astype(jnp.float32), k)
    assert not cudnn.can_fuse(q[:, :5], k) and not cudnn.can_fuse(q, k[:, :5])
    assert not cudnn.can_fuse(q[..., :6], k[..., :6])
