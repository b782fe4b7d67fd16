"""The product of activations with a weight, with a gradient that never transposes the wide side."""

from __future__ import annotations

from functools import partial

import jax
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Float[Array, "..."], w: Float[Array, "..."], contracted: int = 1) -> Float[Array, "..."]:
    """Contracts the last `contracted` axes of `x` with the first of `w`, which has the same dtype.

    JAX's own rule computes the weight's gradient as (dy^T x)^T. On a CPU, XLA then writes dy transposed, and with it
    computes whatever fuses into dy (the derivative of SiLU) along the slow axis: 15 to 18 % of the time of a SwiGLU
    layer. x^T dy comes out as the weight lies.
    """
    return _contract(x, w, contracted)


def _contract(x: Array, w: Array, contracted: int) -> Array:
    last = tuple(range(x.ndim - contracted, x.ndim))
    return jax.lax.dot_general(x, w, ((last, tuple(range(contracted))), ((), ())))


def _forward(x: Array, w: Array, contracted: int) -> tuple[Array, tuple[Array, Array]]:
    return _contract(x, w, contracted), (x, w)


def _backward(contracted: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, w = saved
    rows, outputs = tuple(range(x.ndim - contracted)), w.ndim - contracted
    columns = tuple(range(gradient.ndim - outputs, gradient.ndim))
    for_x = jax.lax.dot_general(gradient, w, ((columns, tuple(range(contracted, w.ndim))), ((), ())))
    return for_x, jax.lax.dot_general(x, gradient, ((rows, rows), ((), ())))


product.defvjp(_forward, _backward)
