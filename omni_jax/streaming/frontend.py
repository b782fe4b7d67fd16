"""The streaming mel frontend: right-aligned log-mel, one 80 ms slot at a time, with the tail of samples carried along.

Windows end where their frame ends, so a slot needs the 240 samples before it and none after: no look-ahead.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from omni_jax import dsp


def init_tail(rows: int) -> Float[Array, "B 240"]:
    """Silence, as before an utterance."""
    return jnp.zeros((rows, dsp.STREAMING_HISTORY_SAMPLES), jnp.float32)


def mel_step(
    tail: Float[Array, "B 240"], samples: Float[Array, "B N"], num_mels: int
) -> tuple[Float[Array, "B 240"], Float[Array, "B T M"]]:
    """One slot of N = 1,280 samples at 16 kHz -> (next tail, T = 8 mel frames), equal to the whole signal's mel."""
    mel = dsp.log_mel_streaming(samples, num_mels=num_mels, history=tail)
    return jnp.concatenate([tail, samples], axis=-1)[:, -tail.shape[-1] :], mel
