"""The discriminators of the published recipes: by period, by scale, on complex STFTs and on their bands.

Deviation: the first scale of HiFi-GAN's multi-scale discriminator has weight norm like the others, not spectral norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax import dsp
from omni_jax.codec_config import DiscriminatorConfig
from omni_jax.models.codec.discriminators import Judgement
from omni_jax.nn.weight_norm import Geometry, NormedConv, geometry

Layer = tuple[int, Geometry]  # output channels and shape


class ConvStack(nnx.Module):
    """Convolutions with leaky ReLUs, whose outputs are the features."""

    def __init__(self, in_dim: int, layers: Sequence[Layer], slope: float, *, rngs: nnx.Rngs) -> None:
        self.slope = slope
        convs = {}
        for number, (dim, shape) in enumerate(layers):
            convs[f"{number:02d}"] = NormedConv(in_dim, dim, shape, rngs=rngs)
            in_dim = dim
        self.convs = nnx.Dict(convs)

    def __call__(self, x: Float[Array, "B *S C"]) -> tuple[Array, ...]:
        features = []
        for conv in self.convs.values():
            x = jax.nn.leaky_relu(conv(x), self.slope)
            features.append(x)
        return tuple(features)


class PeriodDiscriminator(nnx.Module):
    """Looks at every p-th sample (HiFi-GAN, arXiv:2010.05646 section 2.3). The p phases are rows of the batch, since
    the published kernels (5, 1) never join them."""

    def __init__(self, period: int, dim: int, *, rngs: nnx.Rngs) -> None:
        self.period = period
        widths, last = (dim, 4 * dim, 16 * dim, 32 * dim), geometry((5,))
        layers = [*((width, geometry((5,), (3,))) for width in widths), (32 * dim, last)]
        self.stack = ConvStack(1, layers, 0.1, rngs=rngs)
        self.judge = NormedConv(32 * dim, 1, geometry((3,)), rngs=rngs)

    def __call__(self, wav: Float[Array, "B N"]) -> Judgement:
        batch, length = wav.shape
        padded = jnp.pad(wav, ((0, 0), (0, -length % self.period)), mode="reflect")
        phases = padded.reshape(batch, -1, self.period).swapaxes(1, 2).reshape(batch * self.period, -1, 1)
        features = self.stack(phases)
        return Judgement(self.judge(features[-1])[..., 0], features)


class ScaleDiscriminator(nnx.Module):
    """Grouped convolutions of long reach on the waveform, averaged down `halvings` times (MelGAN, arXiv:1910.06711)."""

    def __init__(self, halvings: int, dim: int, *, rngs: nnx.Rngs) -> None:
        self.halvings = halvings
        shapes = ((1, 15, 1, 1), (1, 41, 2, 4), (2, 41, 2, 16), (4, 41, 4, 16), (8, 41, 4, 16), (8, 41, 1, 16))
        layers = [(w * dim, geometry((k,), (s,), None, min(g, dim))) for w, k, s, g in shapes]
        self.stack = ConvStack(1, [*layers, (8 * dim, geometry((5,)))], 0.1, rngs=rngs)
        self.judge = NormedConv(8 * dim, 1, geometry((3,)), rngs=rngs)

    def __call__(self, wav: Float[Array, "B N"]) -> Judgement:
        for _ in range(self.halvings):
            # Zeros count in the mean, as in PyTorch's AvgPool1d(4, 2, padding=2).
            padded = jnp.pad(wav, ((0, 0), (2, 2)))
            count = (padded.shape[1] - 4) // 2 + 1
            wav = sum(padded[:, j : j + 2 * count - 1 : 2] for j in range(4)) / 4
        features = self.stack(wav[..., None])
        return Judgement(self.judge(features[-1])[..., 0], features)


class StftDiscriminator(nnx.Module):
    """EnCodec's on one complex spectrogram (arXiv:2210.13438 section 3.4), with AudioCraft's slope."""

    def __init__(self, window: int, dim: int, *, rngs: nnx.Rngs) -> None:
        self.window = window
        dilated = [(dim, geometry((3, 9), (1, 2), (d, 1))) for d in (1, 2, 4)]
        layers = [(dim, geometry((3, 9))), *dilated, (dim, geometry((3, 3)))]
        self.stack = ConvStack(2, layers, 0.3, rngs=rngs)
        self.judge = NormedConv(dim, 1, geometry((3, 3)), rngs=rngs)

    def __call__(self, wav: Float[Array, "B N"]) -> Judgement:
        features = self.stack(complex_channels(wav, self.window))
        return Judgement(self.judge(features[-1])[..., 0], features)


class BandsDiscriminator(nnx.Module):
    """DAC's on one complex spectrogram (arXiv:2306.06546 section 3.4): a stack for each band of frequencies."""

    BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

    def __init__(self, window: int, dim: int, *, rngs: nnx.Rngs) -> None:
        self.window = window
        strided = [(dim, geometry((3, 9), (1, 2)))] * 3
        layers = [(dim, geometry((3, 9))), *strided, (dim, geometry((3, 3)))]
        count = len(self.BANDS) - 1
        self.stacks = nnx.Dict({f"{i:02d}": ConvStack(2, layers, 0.1, rngs=rngs) for i in range(count)})
        self.judge = NormedConv(dim, 1, geometry((3, 3)), rngs=rngs)

    def __call__(self, wav: Float[Array, "B N"]) -> Judgement:
        wav = wav - jnp.mean(wav, axis=-1, keepdims=True)
        wav = 0.8 * wav / (jnp.max(jnp.abs(wav), axis=-1, keepdims=True) + 1e-9)
        spectrum = complex_channels(wav, self.window)
        edges = [int(share * spectrum.shape[2]) for share in self.BANDS]
        features, last = [], []
        for stack, start, end in zip(self.stacks.values(), edges, edges[1:]):
            found = stack(spectrum[:, :, start:end])
            features += found
            last.append(found[-1])
        return Judgement(self.judge(jnp.concatenate(last, axis=2))[..., 0], tuple(features))


def complex_channels(wav: Float[Array, "B N"], window: int) -> Float[Array, "B T F 2"]:
    """Real and imaginary part of the STFT at a hop of a quarter window, of unit gain for white noise."""
    spectrum = dsp.stft(wav, window, window // 4) / (0.375 * window) ** 0.5
    return jnp.stack([spectrum.real, spectrum.imag], axis=-1)


class Discriminators(nnx.Module):
    """All that a recipe names, each with parameters of its own."""

    def __init__(self, cfg: DiscriminatorConfig, *, rngs: nnx.Rngs) -> None:
        self.parts = nnx.Dict(
            {f"period_{p}": PeriodDiscriminator(p, cfg.dim, rngs=rngs) for p in cfg.periods}
            | {f"scale_{i}": ScaleDiscriminator(i, 4 * cfg.dim, rngs=rngs) for i in range(cfg.scales)}
            | {f"stft_{w}": StftDiscriminator(w, cfg.dim, rngs=rngs) for w in cfg.stft_windows}
            | {f"bands_{w}": BandsDiscriminator(w, cfg.dim, rngs=rngs) for w in cfg.band_windows}
        )

    def judge(self, wav: Float[Array, "B N"]) -> dict[str, Judgement]:
        """By the discriminator's name, such as period_2."""
        return {name: part(wav) for name, part in self.parts.items()}


def init_params(cfg: DiscriminatorConfig, key: PRNGKeyArray) -> Any:
    """Fresh parameters as a plain nested dict."""
    return nnx.to_pure_dict(nnx.split(Discriminators(cfg, rngs=nnx.Rngs(key)))[1])


def bind(cfg: DiscriminatorConfig, params: Any) -> Discriminators:
    """The module with these parameters."""
    return nnx.merge(nnx.split(nnx.eval_shape(lambda: Discriminators(cfg, rngs=nnx.Rngs(0))))[0], params)
