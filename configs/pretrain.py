"""Stage 1: language, from text alone.

python -m omni_jax.train --config=configs/pretrain.py:tiny --workdir=runs/pretrain

Hardware: 2 CPU cores, a good minute for `tiny`; `small` is for one GPU and has not been trained yet.
Expected: text loss 7.1 -> 2.7 nats a piece.
"""

from ml_collections import ConfigDict

from configs.sizes import omni_config
from omni_jax.config import DataConfig, OptimizerConfig, TrainingConfig


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: tiny or small."""
    tiny = size == "tiny"
    return omni_config(
        "pretrain",
        size,
        data=DataConfig(
            tasks={"text": 0.5, "written_qa": 0.5},
            row_positions=256 if tiny else 2_048,
            rows=8 if tiny else 64,
            audio_slots=0,
            patches=0,
            speech_positions=0,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3 if tiny else 6e-4, warmup_steps=30 if tiny else 2_000),
        training=TrainingConfig(
            steps=170 if tiny else 200_000,
            log_every=10 if tiny else 100,
            checkpoint_every=100 if tiny else 2_000,
        ),
    )
