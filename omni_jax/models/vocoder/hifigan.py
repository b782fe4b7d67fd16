"""HiFi-GAN (arXiv:2010.05646): mel frames, or codes, to waveform. V1, V2 and the unit variant differ in config only.

With `snake` the activations are BigVGAN's (arXiv:2206.04658), without its resampling around them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.codec_config import HifiGanConfig
from omni_jax.nn.stream import Activation, Conv, ConvTranspose, Snake, State, StreamLayer, centred
from omni_jax.nn.stream_chain import Chain, Residual, init_wait, wait

LAST_SLOPE = 0.01  # published code calls its last leaky ReLU with the framework's default


def _activation(cfg: HifiGanConfig, dim: int, delay: int, slope: float | None = None) -> StreamLayer:
    if cfg.snake:
        return Snake(dim, delay)
    return Activation(functools.partial(jax.nn.leaky_relu, negative_slope=slope or cfg.slope), delay)


def residual_stack(cfg: HifiGanConfig, dim: int, branch: int, delay: int, rngs: nnx.Rngs) -> Chain:
    """One branch: a dilated and an undilated convolution for each of its dilations, residual around each pair."""
    kernel_size, layers = cfg.resblock_kernel_sizes[branch], []
    for dilation in cfg.resblock_dilations[branch]:
        first = Conv(dim, dim, centred(kernel_size, dilation), delay=delay, rngs=rngs)
        second = Conv(dim, dim, centred(kernel_size), delay=first.delay, rngs=rngs)
        body = [_activation(cfg, dim, delay), first, _activation(cfg, dim, first.delay), second]
        layers.append(Residual(dim, Chain(body), delay=delay))
        delay = second.delay
    return Chain(layers)


class MultiReceptiveField(StreamLayer):
    """The mean of branches of different reach. In a stream the faster ones wait for the slowest."""

    def __init__(self, cfg: HifiGanConfig, dim: int, *, delay: int = 0, rngs: nnx.Rngs) -> None:
        count, self.dim = len(cfg.resblock_kernel_sizes), dim
        self.branches = nnx.Dict({f"{i:02d}": residual_stack(cfg, dim, i, delay, rngs) for i in range(count)})
        self.delay = max(branch.delay for branch in self.branches.values())

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return sum(branch(x) for branch in self.branches.values()) / len(self.branches)

    def init_state(self, batch: int) -> State:
        return {
            name: {
                "branch": branch.init_state(batch),
                "waiting": init_wait(batch, self.delay - branch.delay, self.dim),
            }
            for name, branch in self.branches.items()
        }

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B T C"], State]:
        total, new = jnp.zeros_like(x), {}
        for name, branch in self.branches.items():
            y, branch_state = branch.step(x, state[name]["branch"])
            y, waiting = wait(y, state[name]["waiting"])
            total, new[name] = total + y, {"branch": branch_state, "waiting": waiting}
        return total / len(self.branches), new


class HifiGan(nnx.Module):
    """Frames to waveform; a stream's waveform is `algorithmic_latency_samples` late."""

    def __init__(self, cfg: HifiGanConfig, *, rngs: nnx.Rngs) -> None:
        self.mean = nnx.Param(jnp.zeros(cfg.input_dim)) if cfg.normalize else None
        self.scale = nnx.Param(jnp.ones(cfg.input_dim)) if cfg.normalize else None
        units = (cfg.num_codebooks, cfg.codebook_size, cfg.input_dim)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), units)) if cfg.num_codebooks else None
        dim = cfg.initial_dim
        layers: list[StreamLayer] = [Conv(cfg.input_dim, dim, centred(7), rngs=rngs)]
        for rate, kernel_size in zip(cfg.rates, cfg.kernel_sizes):
            layers.append(_activation(cfg, dim, layers[-1].delay))
            delay, trim = layers[-1].delay, (kernel_size - rate) // 2
            layers.append(ConvTranspose((dim, dim // 2), kernel_size, rate, trim, delay=delay, rngs=rngs))
            dim //= 2
            layers.append(MultiReceptiveField(cfg, dim, delay=layers[-1].delay, rngs=rngs))
        layers.append(_activation(cfg, dim, layers[-1].delay, LAST_SLOPE))
        layers.append(Conv(dim, 1, centred(7), delay=layers[-1].delay, rngs=rngs))
        self.parts = Chain(layers)

    @property
    def algorithmic_latency_samples(self) -> int:
        return self.parts.delay

    def init_state(self, batch: int) -> State:
        return self.parts.init_state(batch)

    def embed(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T M"]:
        """Frames of the unit variant: the sum of the codes' embeddings."""
        return sum(self.embedding[...][q][codes[..., q]] for q in range(codes.shape[-1]))

    def _normalise(self, frames: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
        if self.mean is None:
            return frames
        return (frames - self.mean[...][None, None]) / self.scale[...][None, None]

    def __call__(self, frames: Float[Array, "B T M"]) -> Float[Array, "B N"]:
        return jnp.tanh(self.parts(self._normalise(frames))[..., 0])

    def step(self, frames: Float[Array, "B T M"], state: State) -> tuple[Float[Array, "B N"], State]:
        wav, state = self.parts.step(self._normalise(frames), state)
        return jnp.tanh(wav[..., 0]), state
