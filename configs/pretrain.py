"""Stage 1: language, from text alone, and questions as they will be heard, without sound.

python -m omni_jax.train --config=configs/pretrain.py:tiny --workdir=runs/pretrain

Hardware: 2 CPU cores, 2 minutes for `tiny`; `small` is for one GPU and has not been trained yet. The others are for
pods, planned by compilation (docs/scaling.md), not yet trained, and read text alone.
Expected: text loss, two thirds of it answers to questions, 7.3 -> 2.0 nats a piece.
"""

from ml_collections import ConfigDict

from configs.sizes import LAPTOP, omni_config
from omni_jax.config import DataConfig, OptimizerConfig, TrainingConfig


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: one of configs/sizes.py, or of text alone: mixtral_8x7b, qwen3_30b_a3b."""
    tiny, small = size in LAPTOP, size == "small"
    rows, positions = (8, 256) if tiny else (64, 2_048) if small else (256, 4_096)
    return omni_config(
        "pretrain",
        size,
        data=DataConfig(
            # Most of it questions: in writing, and as they will be heard, words at their times, pictures by name.
            tasks={"text": 0.35, "written_qa": 0.2, "spoken_qa": 0.45} if tiny or small else {"text": 1.0},
            written_media=tiny or small,
            row_positions=positions,
            rows=rows,
            audio_slots=192 if tiny else 480 * small,
            patches=256 if tiny else 2_304 * small,
            speech_positions=0,
            max_segments=12 if tiny else 32,
        ),
        optimizer=OptimizerConfig(
            name="muon" if tiny else "adamw",
            learning_rate=5e-3 if tiny else 6e-4,
            warmup_steps=30 if tiny else 2_000,
        ),
        training=TrainingConfig(
            steps={"tiny": 150, "voice": 900}.get(size, 200_000),
            log_every=10 if tiny else 100,
            checkpoint_every=75 if tiny else 2_000,
        ),
    )
