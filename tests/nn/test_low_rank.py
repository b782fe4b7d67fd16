"""Low-rank updates: nothing at the start, the same as the merged matrices later, and which parameters train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.errors import ConfigError
from omni_jax.model_config import TrunkVariant, parse_lora
from omni_jax.models import binding, omni
from omni_jax.models.language import LanguageModel, logits
from omni_jax.nn.low_rank import has_updates, is_update, merge_updates, updated
from omni_jax.training.optimizer import parameter_path, trainable_mask
from omni_jax.training.starting_point import take_parts
from tests.models.tiny import MODEL

SAME = 1e-5
LORA = "*/attention/out=dora3,*/attention/*=2,*/moe/gate=2,text_embedding=dora2,*/mlp/*/kernel=2"
TUNED = dataclasses.replace(MODEL, lora=LORA)
IDS = np.arange(12, dtype=np.int32).reshape(2, 6)


@pytest.fixture(scope="module")
def start():
    init = jax.jit(binding.init_params, static_argnums=(0, 1))
    return init(LanguageModel, TUNED, jax.random.key(0))


def moved(params, size):
    """With every update away from its start."""

    def move(path, leaf):
        if not is_update(parameter_path(path)):
            return leaf
        return leaf + size * np.random.default_rng(len(str(path))).standard_normal(leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(move, params)


def test_an_update_starts_as_nothing_and_can_be_merged(start):
    plain = merge_updates(start)
    assert not has_updates(plain)
    without = logits(MODEL, plain, IDS)
    np.testing.assert_allclose(logits(TUNED, start, IDS), without, atol=SAME)
    tuned = moved(start, 0.3)
    after = logits(TUNED, tuned, IDS)
    np.testing.assert_allclose(after, logits(MODEL, merge_updates(tuned), IDS), atol=SAME)
    assert np.abs(after - without).max() > 0.01


def test_one_matrix_by_the_papers_formulas():
    rng = np.random.default_rng(0)
    w, a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 2, 3), (5, 2), (2, 2, 3)))
    m = rng.random(6).astype(np.float32)
    flat = w.reshape(5, 6) + a @ b.reshape(2, 6)
    np.testing.assert_allclose(updated(w, a, b).reshape(5, 6), flat, atol=SAME)
    magnitude = m * np.linalg.norm(w.reshape(5, 6), axis=0)
    expected = magnitude * flat / np.linalg.norm(flat, axis=0)
    np.testing.assert_allclose(updated(*map(jnp.asarray, (w, a, b, m))).reshape(5, 6), expected, atol=SAME)


def test_updated_matrices_are_frozen_and_patterns_choose():
    axes = omni.param_axes(dataclasses.replace(MODEL, lora="transformer/*/attention/*=2,audio_adapter/*/kernel=dora2"))

    def trained(*prefixes):
        mask = trainable_mask(axes, prefixes)
        return {parameter_path(path) for path, train in jax.tree_util.tree_leaves_with_path(mask) if train}

    assert "transformer/dense/attention/query" not in trained("") and "text_head" in trained("")
    only = trained("*_lora_?")
    assert {"transformer/sparse/attention/out_lora_a", "audio_adapter/hidden/kernel_lora_m"} <= only
    assert all(is_update(name) for name in only)
    assert trained("transformer") > {name for name in only if name.startswith("transformer")}


def test_biases_by_heads_have_no_update():
    biased = dataclasses.replace(MODEL.transformer, variant=TrunkVariant(attention_biases=("query", "out")))
    tuned = dataclasses.replace(MODEL, transformer=biased, lora="*/attention/*=2")
    attention = binding.param_axes(LanguageModel, tuned)["transformer"]["dense"]["attention"]
    assert "query_bias" in attention and "query_lora_a" in attention
    assert not any("bias_lora" in name for name in attention)


def test_updates_that_a_start_does_not_have_stay(start, monkeypatch):
    plain = merge_updates(start)
    monkeypatch.setattr("omni_jax.training.starting_point.load_params", lambda workdir, sharding: (None, plain))
    got = take_parts(start, [("*", "anywhere")])
    jax.tree.map(np.testing.assert_array_equal, got, start)


def test_wrong_patterns_are_errors():
    with pytest.raises(ConfigError, match="want PATTERN=RANK"):
        parse_lora("query=0")
    with pytest.raises(ConfigError, match="'decoder/query' matches no matrix first"):
        omni.param_axes(dataclasses.replace(MODEL, lora="transformer/*=2,decoder/query=3"))
