"""One compiled program through all phases of codec training; each part of the step does its work and no other's."""

import dataclasses
import functools
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax.checkpoint import Checkpointer, load_codec
from omni_jax.codec_config import CodecConfig
from omni_jax.config import CodecTrainingConfig, Config, DataConfig, OptimizerConfig, TrainingConfig
from omni_jax.errors import ConfigError
from omni_jax.input_pipeline.codec_loader import CodecBatch
from omni_jax.model_config import ModelConfig
from omni_jax.models.codec.discriminators import Judgement
from omni_jax.parallel.mesh import make_mesh
from omni_jax.training import codec_losses, codec_stage, gan_step
from omni_jax.training.codec_program import compile_codec_step
from omni_jax.training.metrics import read_metrics
from omni_jax.training.saving import Run, Saver
from omni_jax.types import ABSENT

QUANTISED_FROM, SAVED_STEP, ADVERSARIAL_FROM, STEPS = 3, 4, 5, 7
SAMPLES = 5_760
CONFIG = Config(
    stage="codec",
    model=ModelConfig(num_codebooks=2, codebook_size=8),
    codec=CodecConfig(
        num_codebooks=2,
        codebook_size=8,
        latent_dim=4,
        encoder_dim=8,
        encoder_layers=(1, 1),
        decoder_dim=8,
        decoder_layers=(1, 1, 1),
        num_phones=4,
        conv_kernel=3,
    ),
    codec_training=CodecTrainingConfig(
        segment_samples=SAMPLES,
        quantiser_start_step=QUANTISED_FROM,
        loudness_weight=1.0,
        adversarial_start_step=ADVERSARIAL_FROM,
        adversarial_samples=3_840,
        discriminator_dim=4,
        kmeans_batches=4,
    ),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=1),
    data=DataConfig(rows=8),
    training=TrainingConfig(steps=STEPS, log_every=1, checkpoint_every=100, tensorboard=False),
)


class ToneLoader:
    """Two tones at random loudness, their phones with gaps; the n-th batch is a function of n."""

    def __init__(self):
        self.count = 0

    def __next__(self) -> CodecBatch:
        rng = np.random.default_rng(self.count)
        self.count += 1
        phones = np.repeat(rng.integers(0, 2, (8, SAMPLES // 1920)), 4, axis=1)
        pitch_hz = np.repeat(200.0 + 400.0 * phones, 480, axis=1)
        wav = rng.uniform(0.1, 0.4, (8, 1)) * np.sin(2 * np.pi * np.cumsum(pitch_hz, axis=1) / 24_000)
        known = rng.random(phones.shape) < 0.8
        return CodecBatch(wav.astype(np.float32), np.where(known, phones, ABSENT).astype(np.int32))

    def get_state(self) -> int:
        return self.count

    def set_state(self, state: int) -> None:
        self.count = state


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("codec")


@pytest.fixture(scope="module")
def history(workdir):
    """The states before the first step and after each step, and each step's metrics; saved once, at SAVED_STEP."""
    mesh = make_mesh(CONFIG.mesh, jax.devices())
    optimizers, loader = codec_stage.make_optimizers(CONFIG), ToneLoader()
    state = codec_stage.init_codec_state(CONFIG, optimizers, 0)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    step = compile_codec_step(CONFIG, mesh, gan_step.make_codec_step(CONFIG, optimizers), state)
    prepare = functools.partial(codec_stage.kmeans_start, CONFIG, loader)
    states, metrics = [jax.device_get(state)], []
    for number in range(1, STEPS + 1):
        state = prepare(number - 1, state)
        state, values = step(state, next(loader))
        states.append(jax.device_get(state))
        metrics.append({name: float(value) for name, value in values.items()})
        if number == SAVED_STEP:
            checkpointer = Checkpointer(workdir)
            Saver(Run(CONFIG, workdir, checkpointer), state.key).save(state, number, loader.get_state(), {})
            checkpointer.close()
    return states, metrics


@pytest.mark.skipif(os.environ.get("OMNI_JAX_SLOW") != "1", reason="compiles the step once more: OMNI_JAX_SLOW=1")
def test_with_fsq_the_grids_stay_and_the_rest_learns():
    shape = dataclasses.replace(CONFIG.codec, fsq_levels=(4, 2))
    config = dataclasses.replace(CONFIG, codec=shape)
    optimizers, loader, mesh = codec_stage.make_optimizers(config), ToneLoader(), make_mesh(config.mesh, jax.devices())
    state = codec_stage.init_codec_state(config, optimizers, 0)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    step = compile_codec_step(config, mesh, gan_step.make_codec_step(config, optimizers), state)
    before = jax.device_get(state.params)
    for number in range(STEPS):
        state, metrics = step(codec_stage.kmeans_start(config, loader, number, state), next(loader))
    after = jax.device_get(state.params)
    np.testing.assert_array_equal(after.pop("codebooks"), before.pop("codebooks"))
    for part in before:
        assert changed(before[part], after[part]), part
    usage = np.asarray(state.opt_state.quantizer.usage)
    assert 0 < metrics["codebook_use"] < 1
    np.testing.assert_allclose(usage.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.skipif(os.environ.get("OMNI_JAX_SLOW") != "1", reason="compiles the step once more: OMNI_JAX_SLOW=1")
def test_one_device_makes_the_updates_of_eight(history):
    """Of generator, discriminators and codebooks, seen in the optimizers' first moments, which are linear in the
    gradients, and in the statistics."""
    states, metrics = history
    mesh, optimizers = make_mesh(CONFIG.mesh, jax.devices()[:1]), codec_stage.make_optimizers(CONFIG)
    state = jax.device_put(states[-2], NamedSharding(mesh, PartitionSpec()))
    step = compile_codec_step(CONFIG, mesh, gan_step.make_codec_step(CONFIG, optimizers), state)
    loader = ToneLoader()
    loader.set_state(CONFIG.codec_training.kmeans_batches + STEPS - 1)
    state, values = step(state, next(loader))
    assert float(values["loss"]) == pytest.approx(metrics[-1]["loss"], rel=1e-5)
    ours, expected = jax.device_get(state.opt_state), states[-1].opt_state
    for side in ("generator", "discriminator"):
        moments = [optax.tree.get(getattr(opt, side), "mu") for opt in (ours, expected)]
        assert optax.tree.norm(moments[1]) > 0
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *moments)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours.quantizer, expected.quantizer)


def changed(before, after):
    return any(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)))


def test_generator_learns_in_every_phase(history):
    states, metrics = history
    for before, after in itertools.pairwise(states):
        assert changed(before.params["encoder"], after.params["encoder"])
        assert changed(before.params["decoder"], after.params["decoder"])
        assert changed(before.params["phone_head"], after.params["phone_head"])
    assert all(np.isfinite(value) for values in metrics for value in values.values())


def test_codebooks_start_with_kmeans_and_then_follow_the_statistics(history):
    states, metrics = history
    assert not states[QUANTISED_FROM].params["codebooks"].any()
    first = states[QUANTISED_FROM + 1]
    assert len(np.unique(first.params["codebooks"][0], axis=0)) == 8
    np.testing.assert_allclose(first.opt_state.quantizer.codebooks, first.params["codebooks"], atol=1e-6)
    assert changed(first.params["codebooks"], states[-1].params["codebooks"])
    assert metrics[QUANTISED_FROM - 1]["commit"] == 0.0 < metrics[QUANTISED_FROM]["commit"]


def test_discriminators_rest_until_their_phase_and_then_learn(history):
    states, metrics = history
    discriminators = [state.opt_state.discriminator_params for state in states]
    assert not changed(discriminators[0], discriminators[ADVERSARIAL_FROM])
    assert metrics[ADVERSARIAL_FROM - 1]["discriminator"] == 0.0
    for before, after in zip(discriminators[ADVERSARIAL_FROM:], discriminators[ADVERSARIAL_FROM + 1 :]):
        assert changed(before, after)
    assert metrics[-1]["discriminator"] > 0.0 and metrics[-1]["feature"] > 0.0


def test_adversarial_gradient_has_its_share_and_stays_in_the_crop(history):
    states, _ = history
    optimizers, graphdef = codec_stage.make_optimizers(CONFIG), gan_step.discriminator_graphdef(CONFIG)
    wav = jnp.asarray(next(ToneLoader()).wav)
    reconstruction = jnp.full(wav.shape, 0.01)
    outcome = jax.jit(
        lambda opt, fake: gan_step._adversarial(
            CONFIG, graphdef, optimizers.discriminator, opt, wav, fake, reconstruction, jax.random.key(0)
        )
    )(states[-1].opt_state, 0.5 * wav)
    share = optax.tree.norm(outcome.gradient) / optax.tree.norm(reconstruction)
    assert float(share) == pytest.approx(CONFIG.codec_training.adversarial_share, rel=1e-3)
    touched = np.flatnonzero(np.any(outcome.gradient != 0.0, axis=0))
    assert np.ptp(touched) < CONFIG.codec_training.adversarial_samples


def test_resumed_run_is_the_uninterrupted_one(history, workdir):
    """Resumed between two phases: parameters, optimizers, discriminators and statistics are bit-identical."""
    states, _ = history
    resumed = codec_stage.train_codec_on(ToneLoader(), CONFIG, workdir)
    last = states[-1]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, last.params)
    jax.tree.map(np.testing.assert_array_equal, resumed.opt_state, last.opt_state)
    assert [line["step"] for line in read_metrics(workdir)] == list(range(SAVED_STEP + 1, STEPS + 1))


def test_goes_on_from_another_codec_with_its_codebooks(history, workdir):
    assert all(values["loudness"] > 0 for values in history[1])
    saved = load_codec(workdir)[1]
    quantised = dataclasses.replace(CONFIG.codec_training, quantiser_start_step=0)
    training = dataclasses.replace(CONFIG.training, init_from=str(workdir))
    config = dataclasses.replace(CONFIG, codec_training=quantised, training=training)
    fresh = codec_stage.init_codec_state(config, codec_stage.make_optimizers(config), 1)
    state = codec_stage.starting_state(config, fresh)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), saved)
    np.testing.assert_allclose(state.opt_state.quantizer.codebooks, saved["codebooks"], rtol=1e-5)
    assert codec_stage.kmeans_start(config, None, 0, state) is state
    with pytest.raises(ConfigError, match="quantiser_start_step=0"):
        codec_stage.starting_state(dataclasses.replace(config, codec_training=CONFIG.codec_training), fresh)
    other = dataclasses.replace(config, codec=dataclasses.replace(config.codec, latent_dim=8))
    with pytest.raises(ConfigError, match="another codec"):
        codec_stage.starting_state(other, fresh)


def test_phone_loss_ignores_unknown_phones():
    logits = jnp.array([[[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]])
    loss, accuracy = codec_losses.phone_loss(logits, jnp.array([[0, 1, ABSENT]]))
    assert float(loss) < 1e-3 and float(accuracy) == 1.0
    loss, accuracy = codec_losses.phone_loss(logits, jnp.full((1, 3), ABSENT))
    assert float(loss) == 0.0 and float(accuracy) == 0.0


def test_reconstruction_losses_are_zero_only_for_the_same_sound():
    wav = jnp.asarray(next(ToneLoader()).wav)
    losses = jax.jit(codec_losses.reconstruction_losses)
    assert [float(loss) for loss in losses(wav, wav)] == [0.0, 0.0]
    assert all(float(loss) > 0.05 for loss in losses(wav, wav[:, ::-1] * 0.5))


def test_adversarial_losses_know_their_sides():
    def judged(logit, feature):
        return (Judgement(jnp.full((1, 2, 3), logit), (jnp.full((1, 2, 3, 4), feature),)),)

    sure = codec_losses.discriminator_loss(judged(2.0, 1.0), judged(-2.0, 1.0))
    fooled = codec_losses.discriminator_loss(judged(-2.0, 1.0), judged(2.0, 1.0))
    assert float(sure) == 0.0 < float(fooled)
    assert float(codec_losses.generator_hinge_loss(judged(2.0, 1.0))) == 0.0
    assert float(codec_losses.feature_matching_loss(judged(0.0, 2.0), judged(0.0, 2.0))) == 0.0
    assert float(codec_losses.feature_matching_loss(judged(0.0, 2.0), judged(0.0, 1.0))) == pytest.approx(0.5, rel=1e-4)
