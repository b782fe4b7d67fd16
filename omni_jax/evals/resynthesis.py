"""Recordings through the codec and back: the ceiling of everything that the model says."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from omni_jax.export.bundle import Bundle
from omni_jax.models import codec
from omni_jax.types import FRAME_SPEECH_SAMPLES

LEAD_FRAMES = 4


def resynthesise(bundle: Bundle, wavs: Sequence[Float[np.ndarray, " N"]]) -> list[Float[np.ndarray, " M"]]:
    """24 kHz to 24 kHz, in one program: all are padded with silence to the longest."""
    if not wavs:
        return []
    lead = LEAD_FRAMES * FRAME_SPEECH_SAMPLES
    frames = max(-(-len(wav) // FRAME_SPEECH_SAMPLES) for wav in wavs) + 2 * LEAD_FRAMES
    batch = np.zeros((len(wavs), frames * FRAME_SPEECH_SAMPLES), np.float32)
    for row, wav in enumerate(wavs):
        batch[row, lead : lead + len(wav)] = wav

    @jax.jit
    def there_and_back(params: dict, wav: Float[Array, "B N"]) -> Float[Array, "B N"]:
        return codec.decode_codes(bundle.codec_config, params, codec.encode_codes(bundle.codec_config, params, wav))

    return list(np.asarray(there_and_back(bundle.codec_params, batch)))
