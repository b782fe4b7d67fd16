"""Speech codecs: 24 kHz speech to 12.5 Hz codes and back, offline and frame by frame."""

from omni_jax.models.codec.functional import (
    bind,
    decode_codes,
    decode_step,
    decoder_latency_samples,
    encode_codes,
    encode_step,
    encoder_latency_samples,
    init_decode_state,
    init_encode_state,
    init_params,
    reset_rows,
)

__all__ = [
    "bind",
    "decode_codes",
    "decode_step",
    "decoder_latency_samples",
    "encode_codes",
    "encode_step",
    "encoder_latency_samples",
    "init_decode_state",
    "init_encode_state",
    "init_params",
    "reset_rows",
]
