"""The speech codec: 24 kHz speech to 8 codebooks at 12.5 Hz and back.

python -m omni_jax.train --config=configs/codec.py:tiny --workdir=runs/codec

Hardware: 2 CPU cores, 4 minutes for `tiny`, 51 for `voice` beside other work (the shipped codec took three
runs: docs/model_card.md); `small` is for one GPU and has not been trained yet.
Expected: mel loss 1.2 -> 0.2; in 1500 steps 0.14, phone accuracy 0.5 to 0.6, 90 % of each codebook in use.
"""

from ml_collections import ConfigDict

from configs.sizes import LAPTOP, codec_config
from omni_jax.config import CodecTrainingConfig, DataConfig, OptimizerConfig, TrainingConfig

NEVER = 10**9  # in 1,500 steps discriminators made no difference (docs/LOG.md)


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: tiny, voice (the same codec, trained for longer) or small."""
    tiny = size in LAPTOP
    steps, quantised, adversarial = {"tiny": (1_100, 180, 970), "voice": (9_000, 1_500, NEVER)}.get(
        size, (400_000, 20_000, 50_000)
    )
    return codec_config(
        size,
        data=DataConfig(rows=8 if tiny else 64),
        optimizer=OptimizerConfig(
            name="muon" if size == "voice" else "adamw",
            learning_rate={"tiny": 3e-3, "voice": 5e-3}.get(size, 1e-3),
            warmup_steps=50,
            beta1=0.8,
            beta2=0.95,
            weight_decay=0.01,
            spike_factor=0.0,  # the loss jumps where a phase begins
        ),
        codec_training=CodecTrainingConfig(
            readings=size == "voice",
            speed_range=0.2 if size == "voice" else 0.0,
            loudness_weight=10.0 if size == "voice" else 0.0,
            quantiser_start_step=quantised,
            # With the discriminators a step takes almost twice as long: at `tiny` only the last 12 % of them.
            adversarial_start_step=adversarial,
        ),
        training=TrainingConfig(
            steps=steps,
            log_every=20 if tiny else 100,
            checkpoint_every=550 if tiny else 5_000,
        ),
    )
