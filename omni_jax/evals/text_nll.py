"""Did the duplex stage forget how to write? Text loss on held-out text, after `duplex` over after `pretrain`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from omni_jax.evals.entries import entry
from omni_jax.model_config import ModelConfig
from omni_jax.models import omni
from omni_jax.types import Batch


def text_nll(model: ModelConfig, params: Any, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Summed negative log-likelihood in nats and number of target tokens of each row of every batch."""

    @jax.jit
    def row_sums(params: Any, batch: Batch) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        hidden = omni.apply(model, params, batch).hidden
        log_probs = jax.nn.log_softmax(omni.text_logits(model, params, hidden).astype(jnp.float32))
        target = batch.timeline.text_target
        picked = jnp.take_along_axis(log_probs, jnp.maximum(target, 0)[..., None], axis=-1)[..., 0]
        counted = (batch.timeline.text_weight > 0) & (target >= 0)
        return -jnp.sum(jnp.where(counted, picked, 0.0), axis=1), jnp.sum(counted, axis=1, dtype=jnp.float32)

    sums = [row_sums(params, batch) for batch in batches]
    return np.concatenate([np.asarray(nll) for nll, _ in sums]), np.concatenate([np.asarray(n) for _, n in sums])


def text_nll_ratio(
    after: np.ndarray, before: np.ndarray, tokens: np.ndarray, vocab_size: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`text_nll_ratio` from the row sums after `duplex` and after `pretrain` on the same rows.

    Floor: a uniform guess over the vocabulary. Ceiling: 1, nothing forgotten.
    """

    def ratio(index: np.ndarray) -> float:
        return float(after[index].sum() / before[index].sum())

    floor = math.log(vocab_size) * tokens.sum() / before.sum()
    metrics = entry("text_nll_ratio", ratio, {"row": list(range(len(after)))}, floor=float(floor), ceiling=1.0)
    metrics |= {
        "text_nll_nats_per_token": float(after.sum() / tokens.sum()),
        "text_nll_nats_per_token_pretrain": float(before.sum() / tokens.sum()),
    }
    records = [{"nll": float(a), "nll_pretrain": float(b), "tokens": int(n)} for a, b, n in zip(after, before, tokens)]
    return metrics, records
