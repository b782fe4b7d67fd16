"""The Descript audio codec (arXiv:2306.06546). Its centred convolutions make a stream late, not inexact."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.codec_config import DacConfig
from omni_jax.models.codec.published import PublishedCodec
from omni_jax.models.codec.quantizers import FactorisedQuantizer
from omni_jax.nn.stream import Conv, ConvTranspose, Snake, State, StreamLayer, Window, centred
from omni_jax.nn.stream_chain import Chain, Residual

DILATIONS = (1, 3, 9)


def _delay(layers: list[StreamLayer]) -> int:
    return layers[-1].delay


def residual_unit(dim: int, dilation: int, delay: int, rngs: nnx.Rngs) -> Residual:
    wide = Conv(dim, dim, centred(7, dilation), delay=delay, rngs=rngs)
    point = Conv(dim, dim, Window(1), delay=wide.delay, rngs=rngs)
    return Residual(dim, Chain([Snake(dim), wide, Snake(dim), point]), delay=delay)


def _residual_units(layers: list[StreamLayer], dim: int, rngs: nnx.Rngs) -> None:
    for dilation in DILATIONS:
        layers.append(residual_unit(dim, dilation, _delay(layers), rngs))


def encoder_layers(cfg: DacConfig, rngs: nnx.Rngs) -> list[StreamLayer]:
    dim = cfg.encoder_dim
    layers: list[StreamLayer] = [Conv(1, dim, centred(7), rngs=rngs)]
    for stride in cfg.strides:
        _residual_units(layers, dim, rngs)
        down = Window(2 * stride, stride, padding=math.ceil(stride / 2))
        layers += [Snake(dim, _delay(layers)), Conv(dim, 2 * dim, down, delay=_delay(layers), rngs=rngs)]
        dim *= 2
    layers.append(Snake(dim, _delay(layers)))
    return [*layers, Conv(dim, cfg.latent_dim, centred(3), delay=_delay(layers), rngs=rngs)]


def decoder_layers(cfg: DacConfig, rngs: nnx.Rngs) -> list[StreamLayer]:
    dim = cfg.decoder_dim
    layers: list[StreamLayer] = [Conv(cfg.latent_dim, dim, centred(7), rngs=rngs)]
    for stride in reversed(cfg.strides):
        layers.append(Snake(dim, _delay(layers)))
        trim, delay = math.ceil(stride / 2), _delay(layers)
        layers.append(ConvTranspose((dim, dim // 2), 2 * stride, stride, trim, delay=delay, rngs=rngs))
        dim //= 2
        _residual_units(layers, dim, rngs)
    layers.append(Snake(dim, _delay(layers)))
    return [*layers, Conv(dim, 1, centred(7), delay=_delay(layers), rngs=rngs)]


class DacEncoder(nnx.Module):
    """Waveform to latents; a stream's latents are `delay_frames` late."""

    def __init__(self, cfg: DacConfig, *, rngs: nnx.Rngs) -> None:
        self.parts = Chain(encoder_layers(cfg, rngs))
        self.delay_frames = self.parts.delay

    def init_state(self, batch: int) -> State:
        return self.parts.init_state(batch)

    def __call__(self, wav: Float[Array, "B N"]) -> Float[Array, "B T D"]:
        return self.parts(wav[..., None])

    def step(self, wav: Float[Array, "B N"], state: State) -> tuple[Float[Array, "B T D"], State]:
        return self.parts.step(wav[..., None], state)


class DacDecoder(nnx.Module):
    """Latents to waveform; a stream's waveform is `algorithmic_latency_samples` late."""

    def __init__(self, cfg: DacConfig, *, rngs: nnx.Rngs) -> None:
        self.parts = Chain(decoder_layers(cfg, rngs))

    @property
    def algorithmic_latency_samples(self) -> int:
        return self.parts.delay

    def init_state(self, batch: int) -> State:
        return self.parts.init_state(batch)

    def __call__(self, latents: Float[Array, "B T D"]) -> Float[Array, "B N"]:
        return jnp.tanh(self.parts(latents)[..., 0])

    def step(self, latents: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B N"], State]:
        wav, state = self.parts.step(latents, state)
        return jnp.tanh(wav[..., 0]), state


class DacCodec(PublishedCodec):
    """Encoder, factorised quantiser, decoder.

    For odd strides `decode` gives a few samples fewer than T hops, like the published model.
    """

    def __init__(self, cfg: DacConfig, *, rngs: nnx.Rngs) -> None:
        self.encoder = DacEncoder(cfg, rngs=rngs)
        self.decoder = DacDecoder(cfg, rngs=rngs)
        shape = (cfg.num_codebooks, cfg.codebook_size, cfg.codebook_dim)
        self.quantizer = FactorisedQuantizer(shape, cfg.latent_dim, rngs=rngs)
