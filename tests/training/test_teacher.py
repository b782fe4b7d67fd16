"""What is distilled: the published encoder, hearing our sampling rate, and a loss that knows right from wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax import dsp
from omni_jax.training import teacher
from tests.pretrained.published import GOLDEN
from tests.training.test_recipes import SLOW, ToneLoader, compiled, recipe_stage, small


def tones(rate, seconds=0.4):
    time = np.arange(int(rate * seconds)) / rate
    return sum(0.2 * np.sin(2 * np.pi * f * time + f) for f in (150, 900, 2_500, 6_100))[None].astype(np.float32)


def test_features_at_24_khz_are_those_at_16_khz():
    ours, reference = (np.asarray(teacher.log_mel(tones(rate), rate, 80)) for rate in (24_000, 16_000))
    assert ours.shape == reference.shape == (1, 40, 80)
    np.testing.assert_allclose(ours[:, 2:-2], reference[:, 2:-2], atol=0.02)
    whole = np.asarray(dsp.log_mel_whisper(jnp.asarray(tones(16_000))))[:, :37]
    np.testing.assert_allclose(reference[:, :37], whole, atol=1e-4)


def test_the_teacher_is_the_published_encoder():
    found = teacher.read_teacher(str(GOLDEN / "whisper"))
    heard = teacher.hear(found, jnp.asarray(tones(24_000)), 24_000)
    assert heard.shape == (1, 20, found.config.tower.embed_dim)
    assert float(jnp.std(heard)) > 0.1


def test_the_loss_is_zero_for_what_was_heard_and_one_for_what_has_nothing_of_it():
    heard = jax.random.normal(jax.random.key(0), (2, 12, 6))
    pooled = jnp.mean(heard.reshape(2, 3, 4, 6), axis=2)
    assert abs(float(teacher.distillation_loss(3.0 * pooled, heard))) < 1e-6
    assert abs(float(teacher.distillation_loss(-pooled, heard)) - 2.0) < 1e-6
    assert float(teacher.distillation_loss(jnp.zeros_like(pooled), heard)) == 1.0


@pytest.mark.skipif(not SLOW, reason="trains a codec for some steps: OMNI_JAX_SLOW=1")
def test_the_semantic_codebook_learns_from_the_teacher(monkeypatch):
    monkeypatch.chdir(GOLDEN)
    config = small("mimi")
    weights = dataclasses.replace(config.recipe.weights, distill=1.0, phone=0.0)
    recipe = dataclasses.replace(config.recipe, weights=weights, teacher="whisper")
    config = dataclasses.replace(config, recipe=recipe)
    found, optimizers = teacher.read_teacher(recipe.teacher), recipe_stage.make_optimizers(config)
    state, step = compiled(config, optimizers, 8, found)
    loader = ToneLoader(recipe)
    state = recipe_stage.kmeans_start(config, loader, 0, state)
    losses = []
    for _ in range(30):
        state, metrics = step(state, next(loader))
        losses.append(float(metrics["distill"]))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
