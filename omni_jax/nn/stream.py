"""Convolutions over time that run offline (`layer(x)`) and in pieces (`layer.step(x, state)`), causal or centred.

A centred layer needs samples that have not come yet, so its streaming output is late. Every layer is told the `delay`
of its input, in steps of its input rate, and states the `delay` of its output: element i of a stream is element
`i - delay` of the offline sequence. Elements before the first one are zeroed, because offline a layer sees its own
padding there and not what the layers below would make of theirs. So centred networks stream exactly, too, and a
causal one is the case of delay 0.

States are pytrees of arrays that lead with the batch axis and start at zero: a row is reset by zeroing it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

State = Any
_LAYOUT = ("NHC", "HIO", "NHC")


class Window(NamedTuple):
    """The geometry of a convolution. `padding` is zeros on each side; None pads on the left alone, which is causal: the
    last tap is on the newest element of its stride, also where the kernel is shorter than that and skips elements.

    `pad_mode` is how the causal padding is filled: `constant` (zeros), `replicate` (the first element) or `reflect`,
    which needs later samples: a stream starts with zeros instead.
    """

    kernel_size: int
    stride: int = 1
    dilation: int = 1
    padding: int | None = None
    pad_mode: str = "constant"

    @property
    def span(self) -> int:
        """Input steps from the first to the last tap."""
        return (self.kernel_size - 1) * self.dilation + 1

    @property
    def skipped(self) -> int:
        """Elements of a stride before the first tap of a causal kernel that is shorter than the stride."""
        return max(0, self.stride - self.span) if self.padding is None else 0

    @property
    def reach(self) -> int:
        return self.skipped + self.span

    @property
    def left(self) -> int:
        return self.reach - self.stride if self.padding is None else self.padding

    def delay_after(self, delay: int) -> int:
        """Delay of the output, in output steps, for an input that is `delay` input steps late."""
        return max(0, math.ceil((delay + self.reach - self.left - self.stride) / self.stride))

    def history(self, delay: int) -> int:
        """Input steps that a stream keeps."""
        return self.delay_after(delay) * self.stride + self.left - delay


def centred(kernel_size: int, dilation: int = 1) -> Window:
    """A window that keeps the length: odd kernel, as much padding on both sides."""
    return Window(kernel_size, 1, dilation, (kernel_size - 1) * dilation // 2)


class StreamLayer(nnx.Module):
    """What a stack is made of. This base is a layer without memory: it streams by being called."""

    delay: int = 0

    def init_state(self, batch: int) -> State:
        return {}

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B N D"], State]:
        return self(x), state


class Activation(StreamLayer):
    """A pointwise function."""

    def __init__(self, function: Callable[[Array], Array], delay: int = 0) -> None:
        self.function, self.delay = function, delay

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return self.function(x)


class Snake(StreamLayer):
    """x + sin(a x)^2 / a with a learned a for each channel (arXiv:2006.08195)."""

    def __init__(self, dim: int, delay: int = 0) -> None:
        self.alpha = nnx.Param(jnp.ones(dim))
        self.delay = delay

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        alpha = self.alpha[...][None, None]
        return x + jnp.square(jnp.sin(alpha * x)) / (alpha + 1e-9)


class Conv(StreamLayer):
    """Dense convolution. A step takes a multiple of `stride` elements."""

    def __init__(
        self, in_dim: int, out_dim: int, window: Window, *, bias: bool = True, delay: int = 0, rngs: nnx.Rngs
    ) -> None:
        if window.reach < window.stride:
            raise ValueError(
                f"Conv: kernel_size={window.kernel_size} is below stride={window.stride}: want padding=None"
            )
        self.window, self.in_dim, self.delay_in = window, in_dim, delay
        self.delay = window.delay_after(delay)
        # A third of unit variance, PyTorch's default: in the published nets, residual sums of unit gain would double
        # the variance at every block, and Snake adds to it.
        std = (3 * in_dim * window.kernel_size) ** -0.5
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (window.kernel_size, in_dim, out_dim)))
        self.bias = nnx.Param(jnp.zeros(out_dim)) if bias else None

    def _convolve(self, padded: Float[Array, "B T C"]) -> Float[Array, "B N D"]:
        stride, dilation = (self.window.stride,), (self.window.dilation,)
        y = jax.lax.conv_general_dilated(
            padded[:, self.window.skipped :],
            self.kernel[...],
            stride,
            "VALID",
            rhs_dilation=dilation,
            dimension_numbers=_LAYOUT,
        )
        return y if self.bias is None else y + self.bias[...][None, None]

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B N D"]:
        window, length = self.window, x.shape[1]
        if window.padding is None:
            # A last partial stride is completed with padding of the same kind.
            right = -length % window.stride
            return self._convolve(_pad(x, window.left, right, window.pad_mode))
        return self._convolve(_pad(x, window.left, window.left, "constant"))

    def init_state(self, batch: int) -> State:
        state = {"past": jnp.zeros((batch, self.window.history(self.delay_in), self.in_dim))}
        if self.delay or self.window.pad_mode == "replicate":
            state["seen"] = jnp.zeros(batch, jnp.int32)
        return state

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B N D"], State]:
        window, length = self.window, x.shape[1]
        if length % window.stride:
            raise ValueError(f"Conv: {length} steps are not a multiple of stride={window.stride}: cut the chunk so")
        past = state["past"]
        if window.pad_mode == "replicate":
            past = jnp.where(state["seen"][:, None, None] == 0, x[:, :1], past)
        padded = jnp.concatenate([past, x], axis=1)
        y = self._convolve(padded[:, : length - window.stride + window.reach])
        new = {"past": padded[:, length:]}
        if "seen" in state:
            y = _silence_before(y, state["seen"], self.delay)
            new["seen"] = jnp.minimum(state["seen"] + y.shape[1], max(self.delay, 1))
        return y, new


class ConvTranspose(StreamLayer):
    """Transposed convolution as a convolution with `stride` times the outputs: step t writes `stride` elements.

    `trim` elements are cut from each side; None cuts `kernel_size - stride` from the right alone, which is causal. The
    state is the last inputs whose kernels reach into the next elements, so no bias is stored, let alone added twice.
    """

    def __init__(
        self,
        dims: tuple[int, int],
        kernel_size: int,
        stride: int,
        trim: int | None = None,
        *,
        delay: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_dim, self.out_dim = dims
        self.kernel_size, self.stride, self.trim = kernel_size, stride, trim
        self.taps = math.ceil(kernel_size / stride)
        self.delay = delay * stride + (trim or 0)
        std = (3 * self.out_dim * kernel_size) ** -0.5  # PyTorch's default
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (kernel_size, *dims)))
        self.bias = nnx.Param(jnp.zeros(self.out_dim))

    def _expand(self, padded: Float[Array, "B T C"]) -> Float[Array, "B N D"]:
        kernel = jnp.pad(self.kernel[...], ((0, self.taps * self.stride - self.kernel_size), (0, 0), (0, 0)))
        kernel = kernel.reshape(self.taps, self.stride, self.in_dim, self.out_dim).swapaxes(1, 2)[::-1]
        kernel = kernel.reshape(self.taps, self.in_dim, self.stride * self.out_dim)
        y = jax.lax.conv_general_dilated(padded, kernel, (1,), "VALID", dimension_numbers=_LAYOUT)
        return y.reshape(y.shape[0], -1, self.out_dim) + self.bias[...][None, None]

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B N D"]:
        length, reach = x.shape[1], self.taps - 1
        if self.trim is None:
            return self._expand(jnp.pad(x, ((0, 0), (reach, 0), (0, 0))))
        whole = self._expand(jnp.pad(x, ((0, 0), (reach, reach), (0, 0))))
        return whole[:, self.trim : (length - 1) * self.stride + self.kernel_size - self.trim]

    def init_state(self, batch: int) -> State:
        state = {"past": jnp.zeros((batch, self.taps - 1, self.in_dim))}
        return state | ({"seen": jnp.zeros(batch, jnp.int32)} if self.delay else {})

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B N D"], State]:
        padded = jnp.concatenate([state["past"], x], axis=1)
        y, new = self._expand(padded), {"past": padded[:, x.shape[1] :]}
        if "seen" in state:
            y = _silence_before(y, state["seen"], self.delay)
            new["seen"] = jnp.minimum(state["seen"] + y.shape[1], self.delay)
        return y, new


class DepthwiseConvTranspose(StreamLayer):
    """Causal transposed convolution of each channel by itself, without bias, as shifted multiply-adds."""

    def __init__(self, dim: int, kernel_size: int, stride: int, *, rngs: nnx.Rngs) -> None:
        if kernel_size % stride:
            raise ValueError(f"DepthwiseConvTranspose: kernel_size={kernel_size} is no multiple of stride={stride}")
        self.dim, self.stride, self.taps = dim, stride, kernel_size // stride
        self.kernel = nnx.Param(self.taps**-0.5 * jax.random.normal(rngs.params(), (kernel_size, dim)))

    def init_state(self, batch: int) -> State:
        return {"past": jnp.zeros((batch, self.taps - 1, self.dim))}

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B N C"]:
        return self.step(x, self.init_state(x.shape[0]))[0]

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B N C"], State]:
        batch, length, dim = x.shape
        padded = jnp.concatenate([state["past"], x], axis=1)
        kernel = self.kernel[...].reshape(self.taps, 1, 1, self.stride, dim)
        past = [padded[:, self.taps - 1 - j : self.taps - 1 - j + length, None] for j in range(self.taps)]
        y = sum(element * kernel[j] for j, element in enumerate(past))
        return y.reshape(batch, length * self.stride, dim), {"past": padded[:, length:]}


def _silence_before(y: Float[Array, "B T D"], seen: Int[Array, " B"], delay: int) -> Float[Array, "B T D"]:
    if not delay:
        return y
    index = seen[:, None] + jnp.arange(y.shape[1])[None]
    return jnp.where((index >= delay)[..., None], y, 0.0)


def _pad(x: Float[Array, "B T C"], left: int, right: int, mode: str) -> Float[Array, "B N C"]:
    """As in EnCodec, a sequence too short to be reflected gets zeros behind it first, which are cut off again."""
    if mode == "replicate":
        return jnp.pad(x, ((0, 0), (left, right), (0, 0)), mode="edge")
    if mode == "constant":
        return jnp.pad(x, ((0, 0), (left, right), (0, 0)))
    extra = max(0, max(left, right) - x.shape[1] + 1)
    padded = jnp.pad(x, ((0, 0), (0, extra), (0, 0)))
    padded = jnp.pad(padded, ((0, 0), (left, right), (0, 0)), mode="reflect")
    return padded[:, : padded.shape[1] - extra]
