"""How full the batches are: what is padding costs the same and teaches nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from omni_jax.types import Batch


def fill(batch: Batch) -> dict[str, jax.Array]:
    """Share of the positions, audio slots, patches and positions with all codes that are real, of those that the batch
    has room for.
    """
    used = {
        "fill/positions": batch.timeline.segment_ids > 0,
        "fill/audio_slots": batch.media.mel_segment_ids > 0,
        "fill/patches": batch.media.patch_segment_ids > 0,
        "fill/speech_positions": batch.speech_index >= 0,
    }
    return {name: jnp.mean(real, dtype=jnp.float32) for name, real in used.items() if real.size}
