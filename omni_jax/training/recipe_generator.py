"""The generator's side of a recipe: from a batch to the waveform that is judged and the losses that do not hear it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax.codec_config import HifiGanConfig, VocosConfig
from omni_jax.input_pipeline.codec_loader import PHONE_RATE_HZ, CodecBatch
from omni_jax.models import codec, vocoder
from omni_jax.models.codec.quantizers import Trained
from omni_jax.nn.quantize import Quantized, draw_active_levels
from omni_jax.recipe_config import RecipeConfig
from omni_jax.training.codec_losses import phone_loss
from omni_jax.training.recipe_losses import log_mel
from omni_jax.training.teacher import Teacher, distillation_loss, hear

MEL_OVERLAP = 4  # windows of the vocoders' mel frames, in hops


class Generated(NamedTuple):
    """What a step needs besides waveform and loss."""

    levels: dict[str, Quantized]  # for the codebooks' moving averages
    metrics: dict[str, Float[Array, ""]]


def init_generator(recipe: RecipeConfig, key: PRNGKeyArray, teacher: Teacher | None) -> dict[str, Any]:
    """`model`: the codec's or vocoder's parameters. Where codebook 0 is semantic, what reads it: `phone_head` names
    phones, `teacher_head` what the teacher hears."""
    model_key, head_key = jax.random.split(key)
    family = codec if recipe.is_codec else vocoder
    params = {"model": family.init_params(recipe.generator, model_key)}
    if recipe.weights.phone:
        dim, classes = recipe.generator.latent_dim, subframes(recipe) * recipe.num_phones
        kernel = dim**-0.5 * jax.random.normal(head_key, (dim, classes))
        params["phone_head"] = {"kernel": kernel, "bias": jnp.zeros(classes)}
    if teacher:
        shape = (recipe.generator.latent_dim, teacher.config.tower.embed_dim)
        params["teacher_head"] = shape[0] ** -0.5 * jax.random.normal(jax.random.fold_in(head_key, 1), shape)
    return params


def subframes(recipe: RecipeConfig) -> int:
    """Frames of 20 ms a code."""
    return recipe.generator.hop_samples * PHONE_RATE_HZ // recipe.sample_rate_hz


def generate(
    recipe: RecipeConfig, teacher: Teacher | None, params: dict[str, Any], batch: CodecBatch, key: PRNGKeyArray
) -> tuple[tuple[Float[Array, "B L"], Float[Array, ""]], Generated]:
    """The first L samples of the batch's waveform made anew, and the weighted losses of codes and phones."""
    if recipe.is_codec:
        return _through_codes(recipe, teacher, params, batch, key)
    model = vocoder.bind(recipe.generator, params["model"])
    wav = model(vocoder_input(recipe.generator, batch.wav))
    if recipe.vocos is not None:  # the last windows are not complete
        wav = wav[:, : wav.shape[1] - model.algorithmic_latency_samples]
    return (wav, jnp.zeros(())), Generated({}, {})


def _through_codes(
    recipe: RecipeConfig, teacher: Teacher | None, params: dict[str, Any], batch: CodecBatch, key: PRNGKeyArray
) -> tuple[tuple[Float[Array, "B L"], Float[Array, ""]], Generated]:
    active_key, whole_key = jax.random.split(key)
    cfg, rows = recipe.generator, batch.wav.shape[0]
    model = codec.bind(cfg, params["model"])
    latents = model.encoder(batch.wav)
    num_active = draw_active_levels(active_key, rows, cfg.num_codebooks, recipe.quantizer_dropout)
    trained = model.quantizer.train(latents, num_active)
    as_it_is = jax.random.uniform(whole_key, (rows, 1, 1)) < recipe.unquantized
    wav = model.decoder(jnp.where(as_it_is, latents, trained.vectors))
    side_loss, metrics = _side_losses(recipe, teacher, params, trained, batch)
    return (wav, side_loss), Generated(trained.levels, metrics)


def _side_losses(
    recipe: RecipeConfig, teacher: Teacher | None, params: dict[str, Any], trained: Trained, batch: CodecBatch
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    losses = {"commit": trained.commit_loss, "codebook": trained.codebook_loss}
    metrics = {}
    if recipe.weights.phone:
        head, semantic = params["phone_head"], trained.semantic
        logits = semantic @ head["kernel"] + head["bias"][None, None]
        logits = logits.reshape(semantic.shape[0], -1, recipe.num_phones)
        losses["phone"], metrics["phone_accuracy"] = phone_loss(logits, batch.phones)
    if teacher:
        heard = hear(teacher, batch.wav, recipe.sample_rate_hz)
        losses["distill"] = distillation_loss(trained.semantic @ params["teacher_head"], heard)
    side_loss = sum(getattr(recipe.weights, name) * loss for name, loss in losses.items())
    return side_loss, losses | metrics


def vocoder_input(cfg: HifiGanConfig | VocosConfig, wav: Float[Array, "B N"]) -> Float[Array, "B T M"]:
    """Log-mel frames, T = N / hop. HiFi-GAN's windows are centred on their hop, our Vocos' end with it."""
    window = MEL_OVERLAP * cfg.hop_samples
    spare = window - cfg.hop_samples
    if isinstance(cfg, VocosConfig):
        padded = jnp.pad(wav, ((0, 0), (spare, 0)))
    else:
        padded = jnp.pad(wav, ((0, 0), (spare // 2, spare - spare // 2)), mode="reflect")
    return log_mel(padded, cfg.sample_rate_hz, window, cfg.input_dim)
