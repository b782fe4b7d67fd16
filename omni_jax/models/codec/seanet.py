"""The SEANet codecs: EnCodec (arXiv:2210.13438) with an LSTM, Mimi (arXiv:2410.00037) with transformers at 25 Hz.

Causal throughout: with `pad_mode="constant"` streaming is exact. EnCodec's `reflect` needs samples that follow the
first ones, so a stream starts from zeros instead and differs from offline processing in its first frames.
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.codec_config import SeanetConfig
from omni_jax.models.codec.frame_transformer import FrameTransformer
from omni_jax.models.codec.published import PublishedCodec
from omni_jax.models.codec.quantizers import ResidualQuantizer, SplitQuantizer
from omni_jax.nn.lstm import LSTM
from omni_jax.nn.stream import Activation, Conv, ConvTranspose, DepthwiseConvTranspose, State, StreamLayer, Window
from omni_jax.nn.stream_chain import Chain, Residual


def residual_block(cfg: SeanetConfig, dim: int, dilation: int, rngs: nnx.Rngs) -> Residual:
    """ELU, dilated convolution, ELU, pointwise convolution; the shortcut may be a pointwise convolution."""
    inner = Window(cfg.residual_kernel_size, 1, dilation, None, cfg.pad_mode)
    point = Window(1)
    body = [
        Activation(jax.nn.elu),
        Conv(dim, dim // cfg.compress, inner, rngs=rngs),
        Activation(jax.nn.elu),
        Conv(dim // cfg.compress, dim, point, rngs=rngs),
    ]
    return Residual(dim, Chain(body), Conv(dim, dim, point, rngs=rngs) if cfg.conv_shortcut else None)


def encoder_layers(cfg: SeanetConfig, rngs: nnx.Rngs) -> list[StreamLayer]:
    """In the order, and with the numbers, of the published modules."""
    dim = cfg.num_filters
    layers: list[StreamLayer] = [Conv(1, dim, Window(cfg.kernel_size, pad_mode=cfg.pad_mode), rngs=rngs)]
    for ratio in reversed(cfg.ratios):
        layers += [residual_block(cfg, dim, cfg.dilation_growth**j, rngs) for j in range(cfg.num_residual_layers)]
        down = Window(2 * ratio, ratio, pad_mode=cfg.pad_mode)
        layers += [Activation(jax.nn.elu), Conv(dim, 2 * dim, down, rngs=rngs)]
        dim *= 2
    if cfg.lstm_layers:
        layers.append(LSTM(dim, cfg.lstm_layers, rngs=rngs))
    last = Window(cfg.last_kernel_size, pad_mode=cfg.pad_mode)
    return [*layers, Activation(jax.nn.elu), Conv(dim, cfg.latent_dim, last, rngs=rngs)]


def decoder_layers(cfg: SeanetConfig, rngs: nnx.Rngs) -> list[StreamLayer]:
    dim = cfg.num_filters * 2 ** len(cfg.ratios)
    first = Window(cfg.kernel_size, pad_mode=cfg.pad_mode)
    layers: list[StreamLayer] = [Conv(cfg.latent_dim, dim, first, rngs=rngs)]
    if cfg.lstm_layers:
        layers.append(LSTM(dim, cfg.lstm_layers, rngs=rngs))
    for ratio in cfg.ratios:
        layers += [Activation(jax.nn.elu), ConvTranspose((dim, dim // 2), 2 * ratio, ratio, rngs=rngs)]
        dim //= 2
        layers += [residual_block(cfg, dim, cfg.dilation_growth**j, rngs) for j in range(cfg.num_residual_layers)]
    last = Window(cfg.last_kernel_size, pad_mode=cfg.pad_mode)
    return [*layers, Activation(jax.nn.elu), Conv(dim, 1, last, rngs=rngs)]


class SeanetEncoder(nnx.Module):
    """Waveform to latents. A frame's latent needs nothing beyond the frame."""

    delay_frames = 0

    def __init__(self, cfg: SeanetConfig, *, rngs: nnx.Rngs) -> None:
        parts: list[StreamLayer] = [Chain(encoder_layers(cfg, rngs))]
        if cfg.transformer_layers:
            parts.append(FrameTransformer(cfg, rngs=rngs))
        if cfg.resample > 1:
            window = Window(2 * cfg.resample, cfg.resample, pad_mode="replicate")
            parts.append(Conv(cfg.latent_dim, cfg.latent_dim, window, bias=False, rngs=rngs))
        self.parts = Chain(parts)

    def init_state(self, batch: int) -> State:
        return self.parts.init_state(batch)

    def __call__(self, wav: Float[Array, "B N"]) -> Float[Array, "B T D"]:
        return self.parts(wav[..., None])

    def step(self, wav: Float[Array, "B N"], state: State) -> tuple[Float[Array, "B T D"], State]:
        return self.parts.step(wav[..., None], state)


class SeanetDecoder(nnx.Module):
    """Latents to waveform, without delay."""

    algorithmic_latency_samples = 0

    def __init__(self, cfg: SeanetConfig, *, rngs: nnx.Rngs) -> None:
        parts: list[StreamLayer] = []
        if cfg.resample > 1:
            parts.append(DepthwiseConvTranspose(cfg.latent_dim, 2 * cfg.resample, cfg.resample, rngs=rngs))
        if cfg.transformer_layers:
            parts.append(FrameTransformer(cfg, rngs=rngs))
        self.parts = Chain([*parts, Chain(decoder_layers(cfg, rngs))])

    def init_state(self, batch: int) -> State:
        return self.parts.init_state(batch)

    def __call__(self, latents: Float[Array, "B T D"]) -> Float[Array, "B N"]:
        return self.parts(latents)[..., 0]

    def step(self, latents: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B N"], State]:
        wav, state = self.parts.step(latents, state)
        return wav[..., 0], state


class SeanetCodec(PublishedCodec):
    """Encoder, quantiser, decoder."""

    def __init__(self, cfg: SeanetConfig, *, rngs: nnx.Rngs) -> None:
        self.encoder = SeanetEncoder(cfg, rngs=rngs)
        self.decoder = SeanetDecoder(cfg, rngs=rngs)
        shape = (cfg.num_codebooks, cfg.codebook_size, cfg.codebook_dim)
        if cfg.semantic_codebooks:
            self.quantizer = SplitQuantizer(shape, cfg.semantic_codebooks, cfg.latent_dim, rngs=rngs)
        else:
            self.quantizer = ResidualQuantizer(shape, cfg.latent_dim, rngs=rngs)
