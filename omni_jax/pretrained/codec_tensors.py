"""How a codec's parameters lie in published files: one line a tensor, read in both directions.

Published convolutions are [out, in, taps] and transposed ones [in, out, taps]; ours are [taps, in, out]. Weight
normalisation is folded on the way in. On the way out the norm and the direction are written where the format has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from omni_jax.errors import UserError
from omni_jax.models import codec

Tensors = dict[str, np.ndarray]
Transform = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """Published array to ours, and back."""

    read: Transform
    write: Transform


SAME = Layout(lambda w: w, lambda w: w)
CONV = Layout(lambda w: w.transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0))
CONV_TRANSPOSE = Layout(lambda w: w.transpose(2, 0, 1), lambda w: w.transpose(1, 2, 0))
DEPTHWISE = Layout(lambda w: w[:, 0].T, lambda w: w.T[:, None])
LINEAR = Layout(lambda w: w.T, lambda w: w.T)
POINTWISE = Layout(lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None])
CHANNELS = Layout(lambda w: w.reshape(-1), lambda w: w.reshape(1, -1, 1))


class Entry(NamedTuple):
    """One parameter: our path, joined by '/', the published name, and the layout.

    With `normed` the published tensor is a weight norm's pair. `item` is the place in our stacked parameter.
    """

    path: str
    name: str
    layout: Layout = SAME
    normed: bool = False
    item: int | None = None


def conv(path: str, name: str, layout: Layout = CONV, *, normed: bool = False, bias: bool = True) -> list[Entry]:
    """Kernel and bias."""
    entries = [Entry(f"{path}/kernel", f"{name}.weight", layout, normed)]
    return [*entries, Entry(f"{path}/bias", f"{name}.bias")] if bias else entries


def abstract_params(cfg: codec.AnyCodecConfig) -> Any:
    """Shapes of a codec's parameters."""
    return jax.eval_shape(lambda: codec.init_params(cfg, jax.random.key(0)))


def read_params(tensors: Mapping[str, np.ndarray], entries: Iterable[Entry], abstract: Any) -> dict[str, Any]:
    """Our nested parameters. Raises UserError where a tensor is missing, has another shape, or is left over."""
    left = set(tensors)
    found: dict[str, Any] = {}
    for entry in entries:
        array = entry.layout.read(_weight(tensors, entry, left)).astype(np.float32)
        if entry.item is None:
            found[entry.path] = array
        else:
            found.setdefault(entry.path, {})[entry.item] = array
    if left:
        raise UserError(f"weights: {len(left)} tensors are not known, such as {sorted(left)[0]!r}: is it this codec?")
    flat = {path: _stack(value) for path, value in found.items()}
    return _nest(flat, abstract)


def write_tensors(params: Mapping[str, Any], entries: Iterable[Entry]) -> Tensors:
    """The published tensors, contiguous float32, as safetensors wants them."""
    tensors: Tensors = {}
    for entry in entries:
        value: Any = params
        for key in entry.path.split("/"):
            value = value[key]
        array = np.asarray(value if entry.item is None else value[entry.item], np.float32)
        array = np.ascontiguousarray(entry.layout.write(array))
        if entry.normed:
            stem = entry.name.removesuffix("weight") + "parametrizations.weight.original"
            tensors[f"{stem}0"], tensors[f"{stem}1"] = _norm(array), array
        else:
            tensors[entry.name] = array
    return tensors


def _weight(tensors: Mapping[str, np.ndarray], entry: Entry, left: set[str]) -> np.ndarray:
    """The tensor itself or, of weight norm, direction times length, under the old or the new names."""
    stem = entry.name.removesuffix("weight") + "parametrizations.weight.original"
    for length, direction in ((f"{entry.name}_g", f"{entry.name}_v"), (f"{stem}0", f"{stem}1")):
        if length in tensors and direction in tensors:
            left -= {length, direction}
            v = tensors[direction]
            return tensors[length] * v / _norm(v)
    if entry.name not in tensors:
        raise UserError(f"weights: there is no {entry.name!r}: the file is of another codec or another shape of it")
    left.discard(entry.name)
    return tensors[entry.name]


def _norm(v: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(v), axis=tuple(range(1, v.ndim)), keepdims=True))


def _stack(value: Any) -> np.ndarray:
    return np.stack([value[i] for i in range(len(value))]) if isinstance(value, dict) else value


def _nest(flat: Mapping[str, np.ndarray], abstract: Any, prefix: str = "") -> dict[str, Any]:
    """Arrays in the structure of `abstract`, with its shapes."""
    nested = {}
    for key, value in abstract.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            nested[key] = _nest(flat, value, path + "/")
            continue
        if flat[path].shape != value.shape:
            raise UserError(
                f"weights: {path} has shape {flat[path].shape}, the config wants {value.shape}: give the config.json "
                "that lies beside the weights"
            )
        nested[key] = flat[path]
    return nested
