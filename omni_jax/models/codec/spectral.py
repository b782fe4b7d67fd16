"""The `spectral` speech codec: causal ConvNeXt on STFT frames, 12.5 Hz latents, causal ConvNeXt with an ISTFT head.

Matmul-heavy where SEANet codecs convolve at the sample rate: after Vocos (arXiv:2306.00814), made causal, with
Mimi's frame shape (arXiv:2410.00037): 24 kHz, 80 ms frames, residual codebooks of which the first is semantic. Without
a published speech encoder to distil from, codebook 0 learns to name the phones of its frame instead.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax import dsp
from omni_jax.codec_config import CodecConfig
from omni_jax.nn import fsq
from omni_jax.nn.code_search import search_codes
from omni_jax.nn.conv import CausalConv, ConvNeXtStack
from omni_jax.nn.quantize import dequantize
from omni_jax.types import FRAME_SPEECH_SAMPLES

State = dict[str, Any]

SUBFRAME_SAMPLES = 480  # 50 Hz: the inner frame rate, and the phones' grid
SUBFRAMES = FRAME_SPEECH_SAMPLES // SUBFRAME_SAMPLES
LOG_FLOOR = 1e-2  # magnitudes below are silence (about -85 dBFS a bin)
MAX_LOG_MAGNITUDE = 5.0


class SpectralEncoder(nnx.Module):
    """Waveform to latents. STFT windows end where their frame ends, so a frame never waits for later samples."""

    delay_frames = 0

    def __init__(self, cfg: CodecConfig, *, rngs: nnx.Rngs) -> None:
        self.window, self.hop = cfg.stft_window, cfg.stft_hop
        merged = SUBFRAME_SAMPLES // cfg.stft_hop
        dim, hidden_dim = cfg.encoder_dim, cfg.encoder_dim * cfg.mlp_ratio
        self.embed = CausalConv(cfg.stft_window // 2 + 1, dim, merged, merged, rngs=rngs)
        self.fine = ConvNeXtStack(cfg.encoder_layers[0], dim, hidden_dim, cfg.conv_kernel, rngs=rngs)
        self.downsample = CausalConv(dim, dim, SUBFRAMES, SUBFRAMES, rngs=rngs)
        self.coarse = ConvNeXtStack(cfg.encoder_layers[1], dim, hidden_dim, cfg.conv_kernel, rngs=rngs)
        self.norm = nnx.LayerNorm(dim, rngs=rngs)
        self.project = nnx.Linear(dim, cfg.latent_dim, rngs=rngs)
        self.fsq_levels = cfg.num_codebooks * cfg.fsq_levels

    def init_state(self, batch: int) -> State:
        return {
            "history": jnp.zeros((batch, self.window - self.hop)),
            "embed": self.embed.init_state(batch),
            "fine": self.fine.init_state(batch),
            "downsample": self.downsample.init_state(batch),
            "coarse": self.coarse.init_state(batch),
        }

    def __call__(self, wav: Float[Array, "B N"], state: State) -> tuple[Float[Array, "B T D"], State]:
        new = {}
        spectrum = dsp.windowed_rfft(dsp.frame_causal(wav, self.window, self.hop, state["history"]))
        new["history"] = jnp.concatenate([state["history"], wav], axis=1)[:, wav.shape[1] :]
        x = jnp.log10(dsp.magnitude(spectrum, LOG_FLOOR))
        x, new["embed"] = self.embed(x, state["embed"])
        x, new["fine"] = self.fine(x, state["fine"])
        x, new["downsample"] = self.downsample(x, state["downsample"])
        x, new["coarse"] = self.coarse(x, state["coarse"])
        latents = self.project(self.norm(x))
        return fsq.bounded(latents, self.fsq_levels) if self.fsq_levels else latents, new


class SpectralDecoder(nnx.Module):
    """Latents to waveform. ISTFT window t ends where frame t ends, so a sample is complete, and put out,
    `algorithmic_latency_samples` after its time: the output is the input's waveform delayed by that much."""

    def __init__(self, cfg: CodecConfig, *, rngs: nnx.Rngs) -> None:
        self.window, self.hop = cfg.istft_window, cfg.istft_hop
        self.split_fine = SUBFRAME_SAMPLES // cfg.istft_hop
        dim, hidden_dim = cfg.decoder_dim, cfg.decoder_dim * cfg.mlp_ratio
        coarse, middle, fine = cfg.decoder_layers
        self.embed = nnx.Linear(cfg.latent_dim, dim, rngs=rngs)
        self.coarse = ConvNeXtStack(coarse, dim, hidden_dim, cfg.conv_kernel, rngs=rngs)
        self.upsample_middle = nnx.Linear(dim, SUBFRAMES * dim, rngs=rngs)
        self.middle = ConvNeXtStack(middle, dim, hidden_dim, cfg.conv_kernel, rngs=rngs)
        self.upsample_fine = nnx.Linear(dim, self.split_fine * dim, rngs=rngs)
        self.fine = ConvNeXtStack(fine, dim, hidden_dim, cfg.conv_kernel, rngs=rngs)
        self.norm = nnx.LayerNorm(dim, rngs=rngs)
        self.head = nnx.Linear(dim, 2 * (cfg.istft_window // 2 + 1), rngs=rngs)

    @property
    def algorithmic_latency_samples(self) -> int:
        return self.window - self.hop

    def init_state(self, batch: int) -> State:
        return {
            "coarse": self.coarse.init_state(batch),
            "middle": self.middle.init_state(batch),
            "fine": self.fine.init_state(batch),
            "tail": jnp.zeros((batch, self.window - self.hop)),
        }

    def __call__(self, latents: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B N"], State]:
        new = {}
        batch, length, _ = latents.shape
        x, new["coarse"] = self.coarse(self.embed(latents), state["coarse"])
        x = self.upsample_middle(x).reshape(batch, length * SUBFRAMES, -1)
        x, new["middle"] = self.middle(x, state["middle"])
        x = self.upsample_fine(x).reshape(batch, length * SUBFRAMES * self.split_fine, -1)
        x, new["fine"] = self.fine(x, state["fine"])
        log_magnitude, phase = jnp.split(self.head(self.norm(x)), 2, axis=-1)
        wav, new["tail"] = synthesize(log_magnitude, phase, self.hop, state["tail"])
        return wav, new


def synthesize(
    log_magnitude: Float[Array, "B A F"], phase: Float[Array, "B A F"], hop: int, tail: Float[Array, "B Wo"]
) -> tuple[Float[Array, "B N"], Float[Array, "B Wo"]]:
    """ISTFT by overlap-add. The Hann window squared sums to 0.375 W / hop everywhere, so the scale is a constant."""
    magnitude = jnp.exp(jnp.minimum(log_magnitude, MAX_LOG_MAGNITUDE))
    frames = jnp.fft.irfft(jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)))
    window = frames.shape[-1]
    scale = hop / (0.375 * window)
    return dsp.overlap_add(frames * (dsp.hann(window) * scale)[None, None], hop, tail)


class SpectralCodec(nnx.Module):
    """Encoder, residual codebooks, decoder, and the classifier that makes codebook 0 semantic.

    `codebooks` are set from the quantiser's EMA statistics, never by gradients, or are FSQ's grids, which stay.
    """

    aligned = False  # offline, too, `decode` is late by the decoder's latency

    def __init__(self, cfg: CodecConfig, *, rngs: nnx.Rngs) -> None:
        self.encoder = SpectralEncoder(cfg, rngs=rngs)
        self.decoder = SpectralDecoder(cfg, rngs=rngs)
        shape = (cfg.num_codebooks, cfg.codebook_size, cfg.latent_dim)
        grids = fsq.product_codebooks(cfg.fsq_levels, cfg.num_codebooks) if cfg.fsq_levels else jnp.zeros(shape)
        self.codebooks = nnx.Param(jnp.asarray(grids))
        self.phone_head = nnx.Linear(cfg.latent_dim, SUBFRAMES * cfg.num_phones, rngs=rngs)

    def encode(self, wav: Float[Array, "B N"]) -> Int[Array, "B T Q"]:
        return self.encode_step(wav, self.encoder.init_state(wav.shape[0]))[0]

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B N"]:
        return self.decode_step(codes, self.decoder.init_state(codes.shape[0]))[0]

    def encode_step(self, wav: Float[Array, "B N"], state: State) -> tuple[Int[Array, "B T Q"], State]:
        latents, state = self.encoder(wav, state)
        return search_codes(latents, self.codebooks[...]), state

    def decode_step(self, codes: Int[Array, "B T Q"], state: State) -> tuple[Float[Array, "B N"], State]:
        wav, state = self.decoder(dequantize(codes, self.codebooks[...]), state)
        return jnp.clip(wav, -1.0, 1.0), state

    def phone_logits(self, first: Float[Array, "B T D"]) -> Float[Array, "B 4*T K"]:
        """Phones of the 50 Hz sub-frames, from codebook 0 alone."""
        batch, length, _ = first.shape
        return self.phone_head(first).reshape(batch, length * SUBFRAMES, -1)
