"""What a call starts with: the picture, if there is one, and the dialogue token, pinned in the cache.

It is laid out and packed by the code that lays out training examples, so that both see the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.packing import PATCHES_PER_POOLED, Budget, Packer, assemble
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Example, Layout
from omni_jax.model_config import ModelConfig
from omni_jax.types import Batch, Control

Picture = Float[np.ndarray, "H W 3"]  # RGB in [0, 1]


def prefix_slots(config: ModelConfig) -> int:
    """Positions of the longest prefix: IMAGE, the pooled patches and DIALOGUE."""
    return 2 + config.vision.num_patches // PATCHES_PER_POOLED


def prefix_batch(config: ModelConfig, pictures: Sequence[Picture | None]) -> Batch:
    """One row a picture, or the dialogue token alone where there is none."""
    budget = Budget(
        rows=len(pictures),
        positions=prefix_slots(config),
        rows_per_pool=1,
        slots=0,
        patches=config.vision.num_patches,
        segments=1,
        labels=0,
        speech_positions=0,
        num_codebooks=config.num_codebooks,
        mel_values=config.audio.num_mels,
        patch_values=3 * config.vision.patch_size**2,
    )
    packer = Packer(budget)
    packer.rows = [[_prefix(config, picture)] for picture in pictures]
    return assemble(packer)


def _prefix(config: ModelConfig, picture: Picture | None) -> Example:
    layout = Layout(Task.DIALOGUE, config.num_codebooks)
    if picture is not None:
        pixels = np.round(255.0 * np.asarray(picture)).astype(np.uint8)
        layout.picture(*features.patches(pixels, config.vision))
    return layout.text([Control.DIALOGUE]).finish()
