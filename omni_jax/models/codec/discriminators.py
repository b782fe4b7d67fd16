"""Discriminators on complex spectrograms at several resolutions, after EnCodec's (arXiv:2210.13438) and DAC's.

Deviation: 2-D convolutions are replaced by a patch embedding with a bias for each band and a few blocks of
depthwise 3 x 3 and pointwise layers, so that nearly all work is matmuls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax import dsp

WINDOWS = (256, 512, 1024)
PATCH_FRAMES, PATCH_BINS = 4, 8
NUM_BLOCKS = 2
COMPRESSION = 0.5  # exponent of the magnitude


class Judgement(NamedTuple):
    """What the discriminator of one resolution says."""

    logits: Float[Array, "B T F"]
    features: tuple[Float[Array, "B T F D"], ...]


class MixerBlock(nnx.Module):
    """Depthwise 3 x 3 over time and frequency as shifted multiply-adds, then a pointwise MLP, residual."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, dim)) / 3.0)
        self.up = nnx.Linear(dim, 2 * dim, rngs=rngs)
        self.down = nnx.Linear(2 * dim, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "B T F D"]) -> Float[Array, "B T F D"]:
        kernel, (_, frames, bins, _) = self.kernel[...], x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [
            padded[:, i : i + frames, j : j + bins] * kernel[i, j][None, None, None] for i in range(3) for j in range(3)
        ]
        return x + self.down(jax.nn.leaky_relu(self.up(sum(shifted)), 0.2))


class SpectrogramDiscriminator(nnx.Module):
    """Judges each patch of 4 frames x 8 bins of one resolution."""

    def __init__(self, window: int, dim: int, *, rngs: nnx.Rngs) -> None:
        self.window = window
        self.num_bands = window // 2 // PATCH_BINS
        self.embed = nnx.Linear(2 * PATCH_FRAMES * PATCH_BINS, dim, rngs=rngs)
        self.band = nnx.Param(0.02 * jax.random.normal(rngs.params(), (self.num_bands, dim)))
        self.blocks = nnx.Dict({f"block_{i}": MixerBlock(dim, rngs=rngs) for i in range(NUM_BLOCKS)})
        self.judge = nnx.Linear(dim, 1, rngs=rngs)

    def __call__(self, wav: Float[Array, "B N"]) -> Judgement:
        x = jax.nn.leaky_relu(self.embed(self._patches(wav)) + self.band[...][None, None], 0.2)
        features = []
        for block in self.blocks.values():
            x = block(x)
            features.append(x)
        return Judgement(self.judge(jax.nn.leaky_relu(x, 0.2))[..., 0], tuple(features))

    def _patches(self, wav: Float[Array, "B N"]) -> Float[Array, "B T F X"]:
        spectrum = dsp.stft(wav, self.window, self.window // 4) * (4.0 / self.window)
        spectrum = spectrum[:, : spectrum.shape[1] // PATCH_FRAMES * PATCH_FRAMES, : self.num_bands * PATCH_BINS]
        scale = dsp.magnitude(spectrum, 1e-4) ** (COMPRESSION - 1.0)
        x = jnp.stack([spectrum.real * scale, spectrum.imag * scale], axis=-1)
        batch, frames = x.shape[:2]
        x = x.reshape(batch, frames // PATCH_FRAMES, PATCH_FRAMES, self.num_bands, 2 * PATCH_BINS)
        return jnp.swapaxes(x, 2, 3).reshape(batch, frames // PATCH_FRAMES, self.num_bands, -1)


class MultiResolutionDiscriminator(nnx.Module):
    """One discriminator for each STFT window."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs) -> None:
        self.resolutions = nnx.Dict(
            {f"window_{window}": SpectrogramDiscriminator(window, dim, rngs=rngs) for window in WINDOWS}
        )

    def __call__(self, wav: Float[Array, "B N"]) -> tuple[Judgement, ...]:
        return tuple(self.resolutions[f"window_{window}"](wav) for window in WINDOWS)


def init_discriminator_params(dim: int, key: PRNGKeyArray) -> Any:
    """Fresh parameters as a plain nested dict."""
    return nnx.to_pure_dict(nnx.split(MultiResolutionDiscriminator(dim, rngs=nnx.Rngs(key)))[1])


def discriminator_graphdef(dim: int) -> nnx.GraphDef:
    """The structure without parameters, for `bind_discriminator`."""
    return nnx.split(nnx.eval_shape(lambda: MultiResolutionDiscriminator(dim, rngs=nnx.Rngs(0))))[0]


def bind_discriminator(graphdef: nnx.GraphDef, params: Any) -> MultiResolutionDiscriminator:
    """The module with these parameters."""
    return nnx.merge(graphdef, params)
