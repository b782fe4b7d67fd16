"""Inverse FFTs for jax2onnx, which in version 0.17.1 converts those of a graph's inputs alone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import onnx_ir
from jax2onnx.plugins.jax.lax.fft import FFTPlugin
from jax2onnx.plugins.plugin_system import PLUGIN_REGISTRY


class InverseOfPairs(FFTPlugin):
    """jax2onnx holds what is complex as pairs of floats, and asks an inverse FFT's operand to be called complex."""

    def lower(self, ctx: Any, eqn: Any) -> None:
        (operand,) = eqn.invars
        pairs = ctx.get_value_for_var(operand, name_hint=ctx.fresh_name("fft_input"))
        if jnp.issubdtype(operand.aval.dtype, jnp.complexfloating) and pairs.dtype == onnx_ir.DataType.FLOAT:
            pairs.type = onnx_ir.TensorType(onnx_ir.DataType.COMPLEX64)  # until the plugin calls it pairs again
            pairs.shape = onnx_ir.Shape(operand.aval.shape)
        super().lower(ctx, eqn)


def register() -> None:
    plain, pairs = PLUGIN_REGISTRY["fft"], InverseOfPairs()
    pairs.primitive, pairs.metadata = plain.primitive, plain.metadata
    PLUGIN_REGISTRY["fft"] = pairs
