"""Stage 2a: the encoders alone learn to tell phones, words and things apart.

python -m omni_jax.train --config=configs/perceive.py:tiny --workdir=runs/perceive \
    --config.training.init_from=runs/pretrain

Hardware: 2 CPU cores, 4 minutes for `tiny`; `small` is for one GPU and has not been trained yet.
Expected: words 6.9 -> 0.5 nats, phones 4.6 -> 0.9, names of pictures 6.2 -> 0.5.
"""

from ml_collections import ConfigDict

from configs.sizes import LAPTOP, model_of, omni_config
from omni_jax.config import DataConfig, LossConfig, OptimizerConfig, TrainingConfig


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: one of configs/sizes.py; above `small` nothing is named, and phones alone teach the audio encoder."""
    tiny, small = size in LAPTOP, size == "small"
    has_namers = model_of(size, "perceive").text_posteriors
    return omni_config(
        "perceive",
        size,
        data=DataConfig(
            tasks={"hear": 0.37, "reading": 0.23, "see": 0.4} if size == "voice" else {"hear": 0.6, "see": 0.4},
            row_positions=32,
            rows=4 if tiny else 64,
            audio_slots=384 if tiny else 336 if small else 768,
            patches=512 if tiny else 2_048,
            speech_positions=0,
            max_segments=14 if tiny else 24,
            max_labels=64 if tiny else 128,
        ),
        optimizer=OptimizerConfig(
            name="muon" if tiny else "adamw",
            learning_rate=5e-3 if tiny else 1e-3,
            warmup_steps=30 if tiny else 1_000,
        ),
        loss=LossConfig(phone=1.0, word=2.0, tag=1.0, ctc=0.0),
        training=TrainingConfig(
            steps={"tiny": 600, "voice": 2_500}.get(size, 50_000),
            log_every=10 if tiny else 100,
            checkpoint_every=300 if tiny else 2_000,
            # Words and names stay where pretraining has put them in the space of text.
            trainable=(
                "audio_encoder",
                "audio_adapter",
                "vision_encoder",
                "vision_adapter",
                *(("audio_namer",) if has_namers else ()),
                *(("vision_namer",) if has_namers else ()),
            ),
        ),
    )
