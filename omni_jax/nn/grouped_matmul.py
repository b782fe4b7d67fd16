"""Rows sorted by group, times the matrix of their group: the product that a dropless mixture of experts needs."""

from __future__ import annotations

from functools import partial

import jax
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm
from jaxtyping import Array, Float, Int

from omni_jax.parallel.sharding import platform

_ROW_TILE = 512
_TILE = 1024  # with _ROW_TILE the tiles take 10 MB of a TPU core's 16 MB of scoped vector memory


def grouped_matmul(
    x: Float[Array, "N D"], w: Float[Array, "E _ _"], sizes: Int[Array, "E"], *, transposed: bool = False
) -> Float[Array, "N F"]:
    """`x[i] @ w[group of i]`, where the first `sizes[0]` rows belong to group 0 and so on.

    `transposed`: w is [E, F, D].

    Rows beyond `sum(sizes)` mean nothing. On a TPU a Mosaic kernel (megablox, arXiv 2211.15841) whose work is that of
    the rows; elsewhere `lax.ragged_dot`, which XLA may lower to a product with every group.
    """
    if platform() == "tpu" and x.shape[0] % 128 == 0:
        return mosaic_matmul(x, w, sizes, transposed)
    return jax.lax.ragged_dot(x, w.swapaxes(1, 2) if transposed else w, sizes)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def mosaic_matmul(
    x: Float[Array, "N D"],
    w: Float[Array, "E _ _"],
    sizes: Int[Array, "E"],
    transposed: bool = False,
    interpret: bool = False,
) -> Float[Array, "N F"]:
    """`grouped_matmul` by the TPU kernel; `interpret` runs it elsewhere, slowly. N is a multiple of 128."""
    tiles = _tiles(x, w.shape[1] if transposed else w.shape[2])
    return gmm(x, w, sizes, x.dtype, tiles, transpose_rhs=transposed, interpret=interpret)


def _forward(x: Array, w: Array, sizes: Array, transposed: bool, interpret: bool) -> tuple[Array, tuple[Array, ...]]:
    return mosaic_matmul(x, w, sizes, transposed, interpret), (x, w, sizes)


def _backward(
    transposed: bool, interpret: bool, saved: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, None]:
    x, w, sizes = saved
    left, right = (gradient, x) if transposed else (x, gradient)
    tiles = _tiles(left, right.shape[1])
    for_w = tgmm(left.swapaxes(0, 1), right, sizes, w.dtype, tiles, interpret=interpret)
    return mosaic_matmul(gradient, w, sizes, not transposed, interpret), for_w, None


mosaic_matmul.defvjp(_forward, _backward)


def _tiles(x: Array, width: int) -> tuple[int, int, int]:
    rows = next(tile for tile in (_ROW_TILE, 256, 128) if x.shape[0] % tile == 0)
    return rows, min(_TILE, x.shape[1]), min(_TILE, width)
