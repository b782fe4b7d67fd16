"""The codec's training step: generator and discriminators in one compiled program for all phases.

The phase follows from the step counter on the device: first an autoencoder with noise on the latents, then quantised,
then also adversarial. Before that last phase a `lax.cond` skips the discriminators, so they cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax.config import Config
from omni_jax.input_pipeline.codec_loader import CodecBatch
from omni_jax.models import codec
from omni_jax.models.codec import discriminators
from omni_jax.nn.quantize import Quantized, QuantizerState, count_usage, ema_update, perplexity, quantize
from omni_jax.training import codec_losses
from omni_jax.training.loudness_loss import loudness_loss
from omni_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]


class CodecOptState(NamedTuple):
    """Everything a codec run carries besides the codec's parameters."""

    generator: optax.OptState
    discriminator_params: Any
    discriminator: optax.OptState
    quantizer: QuantizerState


class Adversarial(NamedTuple):
    """Outcome of the discriminators' part of a step."""

    gradient: Float[Array, "B N"]  # of the generator's loss, with respect to the decoded waveform
    params: Any
    opt_state: optax.OptState
    metrics: Metrics


class CodecOptimizers(NamedTuple):
    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def split_codebooks(params: dict[str, Any]) -> tuple[dict[str, Any], Float[Array, "Q K D"]]:
    """What gradients train, and the codebooks, which follow the EMA statistics."""
    return {name: value for name, value in params.items() if name != "codebooks"}, params["codebooks"]


def make_codec_step(
    config: Config, optimizers: CodecOptimizers
) -> Callable[[TrainState, CodecBatch], tuple[TrainState, Metrics]]:
    """The pure step function, to be jitted by the caller with the state donated."""
    graphdef = discriminator_graphdef(config)

    def step(state: TrainState, batch: CodecBatch) -> tuple[TrainState, Metrics]:
        noise_key, crop_key, restart_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        trainable, codebooks = split_codebooks(state.params)
        opt = state.opt_state
        quantising = state.step >= config.codec_training.quantiser_start_step

        def generate(trainable: Any) -> tuple[tuple[Array, Array], tuple[Quantized, Metrics]]:
            params = trainable | {"codebooks": codebooks}
            return _generate(config, params, batch, quantising, noise_key)

        (fake, side_loss), pull_back, (quantized, metrics) = jax.vjp(generate, trainable, has_aux=True)
        (loss, rec_metrics), gradient = _reconstruction(config, batch.wav, fake)
        adversarial = jax.lax.cond(
            state.step >= config.codec_training.adversarial_start_step,
            lambda: _adversarial(config, graphdef, optimizers.discriminator, opt, batch.wav, fake, gradient, crop_key),
            lambda: _no_adversarial(opt, fake),
        )
        (gradients,) = pull_back((gradient + adversarial.gradient, jnp.ones_like(side_loss)))
        updates, generator = optimizers.generator.update(gradients, opt.generator, trainable)
        if config.codec.fsq_levels:
            ema = count_usage(opt.quantizer, quantized, config.codec.ema_decay)
        else:
            ema = ema_update(opt.quantizer, quantized, config.codec.ema_decay, restart_key)
        quantizer = jax.tree.map(lambda new, old: jnp.where(quantising, new, old), ema, opt.quantizer)
        codebooks = codebooks if config.codec.fsq_levels else quantizer.codebooks
        params = optax.apply_updates(trainable, updates) | {"codebooks": codebooks}
        used = jnp.mean(perplexity(quantizer.usage)) / config.codec.codebook_size
        metrics = metrics | rec_metrics | adversarial.metrics | {"codebook_use": used, "loss": loss + side_loss}
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        opt_state = CodecOptState(generator, adversarial.params, adversarial.opt_state, quantizer)
        return TrainState(params, opt_state, state.step + 1, state.key, state.guard), metrics

    return step


def discriminator_graphdef(config: Config) -> Any:
    return discriminators.discriminator_graphdef(config.codec_training.discriminator_dim)


def init_discriminator(config: Config, key: PRNGKeyArray) -> Any:
    return discriminators.init_discriminator_params(config.codec_training.discriminator_dim, key)


def _generate(
    config: Config, params: Any, batch: CodecBatch, quantising: Array, key: PRNGKeyArray
) -> tuple[tuple[Array, Array], tuple[Quantized, Metrics]]:
    """The decoded waveform and the losses that do not hear it."""
    model, training = codec.bind(config.codec, params), config.codec_training
    rows = batch.wav.shape[0]
    latents, _ = model.encoder(batch.wav, model.encoder.init_state(rows))
    quantized = quantize(latents, params["codebooks"])
    spread = jax.lax.stop_gradient(jnp.std(latents, axis=(0, 1), keepdims=True))
    noisy = latents + training.latent_noise * spread * jax.random.normal(key, latents.shape)
    fake, _ = model.decoder(jnp.where(quantising, quantized.vectors, noisy), model.decoder.init_state(rows))
    logits = model.phone_logits(jnp.where(quantising, quantized.first, noisy))
    phone, accuracy = codec_losses.phone_loss(logits, batch.phones)
    commit = jnp.where(quantising, quantized.commit_loss, 0.0)
    commit_weight = 0.0 if config.codec.fsq_levels else training.commit_weight
    side_loss = training.phone_weight * phone + commit_weight * commit
    return (fake, side_loss), (quantized, {"phone": phone, "phone_accuracy": accuracy, "commit": commit})


def _reconstruction(config: Config, wav: Array, fake: Array) -> tuple[tuple[Array, Metrics], Array]:
    """The decoder is late by its latency, so its output is held against the input delayed by as much."""
    late = codec.decoder_latency_samples(config.codec)
    training = config.codec_training

    def loss(fake: Array) -> tuple[Array, Metrics]:
        real, fake = wav[:, :-late], fake[:, late:]
        mel, stft = codec_losses.reconstruction_losses(real, fake)
        total, metrics = training.mel_weight * mel + training.stft_weight * stft, {"mel": mel, "stft": stft}
        if training.loudness_weight:
            metrics["loudness"] = loudness_loss(real, fake)
            total += training.loudness_weight * metrics["loudness"]
        return total, metrics

    return jax.value_and_grad(loss, has_aux=True)(fake)


def _adversarial(
    config: Config,
    graphdef: Any,
    optimizer: optax.GradientTransformation,
    opt: CodecOptState,
    wav: Array,
    fake: Array,
    gradient: Array,
    key: PRNGKeyArray,
) -> Adversarial:
    """Both sides of the game on one crop. One forward pass serves the two backward passes.

    The generator's adversarial gradient is scaled to a share of the reconstruction's norm (EnCodec's balancer).
    """
    training, late = config.codec_training, codec.decoder_latency_samples(config.codec)
    length = training.adversarial_samples
    start = jax.random.randint(key, (), late, wav.shape[1] - length + 1)
    real = jax.lax.dynamic_slice_in_dim(wav, start - late, length, axis=1)
    crop = jax.lax.dynamic_slice_in_dim(fake, start, length, axis=1)

    def judge(params: Any, crop: Array) -> Any:
        discriminator = discriminators.bind_discriminator(graphdef, params)
        return discriminator(real), discriminator(crop)

    def generator_loss(judged: Any) -> tuple[Array, Metrics]:
        hinge, feature = codec_losses.generator_hinge_loss(judged[1]), codec_losses.feature_matching_loss(*judged)
        return hinge + training.feature_weight * feature, {"adversarial": hinge, "feature": feature}

    judged, pull_back = jax.vjp(judge, opt.discriminator_params, crop)
    d_loss, d_cotangent = jax.value_and_grad(lambda judged: codec_losses.discriminator_loss(*judged))(judged)
    (_, metrics), g_cotangent = jax.value_and_grad(generator_loss, has_aux=True)(judged)
    updates, opt_state = optimizer.update(pull_back(d_cotangent)[0], opt.discriminator, opt.discriminator_params)
    g_gradient = pull_back(g_cotangent)[1]
    scale = training.adversarial_share * optax.tree.norm(gradient) / (optax.tree.norm(g_gradient) + 1e-12)
    placed = jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(fake), scale * g_gradient, start, axis=1)
    params = optax.apply_updates(opt.discriminator_params, updates)
    return Adversarial(placed, params, opt_state, metrics | {"discriminator": d_loss})


def _no_adversarial(opt: CodecOptState, fake: Array) -> Adversarial:
    zero = jnp.zeros(())
    metrics = {"adversarial": zero, "feature": zero, "discriminator": zero}
    return Adversarial(jnp.zeros_like(fake), opt.discriminator_params, opt.discriminator, metrics)
