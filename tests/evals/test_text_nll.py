import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.tiny import MODEL, dialogue

from omni_jax.evals.text_nll import text_nll, text_nll_ratio
from omni_jax.models import omni


def test_a_model_without_weights_guesses_uniformly():
    shapes = jax.eval_shape(lambda: omni.init_params(MODEL, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    batch = dialogue(rows=2)
    weight = batch.timeline.text_weight.copy()
    weight[1, 5:] = 0
    nll, tokens = text_nll(MODEL, params, [batch._replace(timeline=batch.timeline._replace(text_weight=weight))])
    assert tokens.tolist() == [weight.shape[1], 5]
    np.testing.assert_allclose(nll, tokens * math.log(MODEL.vocab_size), rtol=1e-5)


def test_ratio_is_of_sums_with_the_uniform_guess_as_floor():
    after, before, tokens = np.array([11.0, 21.0]), np.array([10.0, 20.0]), np.array([5.0, 10.0])
    metrics, records = text_nll_ratio(after, before, tokens, vocab_size=64)
    assert metrics["text_nll_ratio"] == pytest.approx(32 / 30)
    assert metrics["text_nll_ratio_floor"] == pytest.approx(math.log(64) / 2)
    low, high = metrics["text_nll_ratio_ci"]
    assert 1.05 - 1e-9 <= low <= high <= 1.1 + 1e-9
    assert len(records) == 2
