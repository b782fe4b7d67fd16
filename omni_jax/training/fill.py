"""How full the batches are: what is padding costs the same and teaches nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from omni_jax.types import Batch


def fill(batch: Batch) -> dict[str, jax.Array]:
    """Share of the positions, audio slots and patches that are real, of those that the batch has room for."""
    used = {
        "fill/positions": batch.timeline.segment_ids,
        "fill/audio_slots": batch.media.mel_segment_ids,
        "fill/patches": batch.media.patch_segment_ids,
    }
    return {name: jnp.mean(ids > 0, dtype=jnp.float32) for name, ids in used.items() if ids.size}
