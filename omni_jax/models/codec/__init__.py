"""Speech codecs: speech to codes and back, offline and frame by frame, one interface for all families."""

from omni_jax.models.codec.functional import (
    AnyCodecConfig,
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
    "AnyCodecConfig",
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
