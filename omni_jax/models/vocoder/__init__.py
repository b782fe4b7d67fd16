"""Vocoders: mel frames or codes to waveform, offline and in pieces."""

from omni_jax.models.vocoder.functional import (
    bind,
    decode,
    decode_step,
    init_params,
    init_state,
    latency_samples,
)

__all__ = ["bind", "decode", "decode_step", "init_params", "init_state", "latency_samples"]
