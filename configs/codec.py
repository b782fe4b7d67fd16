"""The speech codec: 24 kHz speech to 8 codebooks at 12.5 Hz and back.

python -m omni_jax.train --config=configs/codec.py:tiny --workdir=runs/codec

Hardware: 2 CPU cores, 5 minutes for `tiny`; `small` is for one GPU and has not been trained yet.
Expected: mel loss 1.2 -> 0.2; in 1500 steps 0.14, phone accuracy 0.5 to 0.6, 90 % of each codebook in use.
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
        optimizer=OptimizerConfig(
            learning_rate=3e-3 if tiny else 1e-3,
            warmup_steps=50,
            beta1=0.8,
            beta2=0.95,
            weight_decay=0.01,
            spike_factor=0.0,  # the loss jumps where a phase begins
        ),
        codec_training=CodecTrainingConfig(
            quantiser_start_step=180 if tiny else 20_000,
            # The last 12 % of the steps: with the discriminators a step takes almost twice as long.
            adversarial_start_step=970 if tiny else 50_000,
        ),
        training=TrainingConfig(
            steps=1_100 if tiny else 400_000,
            log_every=20 if tiny else 100,
            checkpoint_every=550 if tiny else 5_000,
        ),
    )
