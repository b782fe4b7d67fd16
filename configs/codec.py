"""The speech codec: 24 kHz speech to 8 codebooks at 12.5 Hz and back.

python -m omni_jax.train --config=configs/codec.py:tiny --workdir=runs/codec
"""

from ml_collections import ConfigDict

from configs.sizes import codec_config
from omni_jax.config import CodecTrainingConfig, DataConfig, OptimizerConfig, TrainingConfig


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: tiny or small."""
    tiny = size == "tiny"
    return codec_config(
        size,
        data=DataConfig(rows=8 if tiny else 64),
        optimizer=OptimizerConfig(learning_rate=3e-3 if tiny else 1e-3, warmup_steps=50, weight_decay=0.01),
        codec_training=CodecTrainingConfig(
            quantiser_start_step=180 if tiny else 20_000,
            adversarial_start_step=10**9 if tiny else 50_000,  # a discriminator costs 2 to 3.5 times a step
        ),
        training=TrainingConfig(
            steps=1_200 if tiny else 400_000,
            log_every=20 if tiny else 100,
            checkpoint_every=300 if tiny else 5_000,
        ),
    )
