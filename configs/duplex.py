"""Stage 3: to listen and speak at once, from dialogues with turns, pauses, backchannels and interruptions.

python -m omni_jax.train --config=configs/duplex.py:tiny --workdir=runs/duplex \
    --config.training.init_from=runs/align --config.training.codec_from=runs/codec

Hardware: 2 CPU cores, 7 minutes for `tiny`; `small` is for one GPU and has not been trained yet.
Expected: monologue 3.9 -> 0.35, semantic 5.4 -> 0.8 (own codes unreliable), phones 1.5 -> 0.5; turn state 0.9 -> 0.26
when it was named at once.
"""

from ml_collections import ConfigDict

from configs.sizes import LAPTOP, omni_config
from omni_jax.config import DataConfig, LossConfig, OptimizerConfig, TrainingConfig

TASKS = {
    "dialogue": 0.68,
    "spoken_qa": 0.14,
    "frame_tts": 0.02,
    "caption": 0.05,
    "text": 0.11,
}

# With at most four pictures a step what sees forgets (docs/LOG.md), so its encoder, adapter and namer stay as they are.
ALL_BUT_VISION = (
    "audio_encoder",
    "audio_adapter",
    "audio_namer",
    "modality_embedding",
    "speech_decoder",
    "speech_embedding",
    "text_embedding",
    "transformer",
    "turn_head",
)


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: one of configs/sizes.py."""
    tiny, small = size in LAPTOP, size == "small"
    return omni_config(
        "duplex",
        size,
        data=DataConfig(
            tasks=TASKS | ({"dialogue": 0.65, "text": 0.14} if size == "voice" else {}),
            row_positions=256 if tiny else 2_048,
            rows=4 if tiny else 32,
            # At `small` a tenth more than the mixture asks for; patches in whole pictures.
            audio_slots=224 if tiny else 1_264 if small else 2_048,
            patches=256 if tiny else 2_304 if small else 2_048,
            speech_positions=64 if tiny else 512,
            max_segments=8 if tiny else 24,
        ),
        optimizer=OptimizerConfig(
            name="muon" if tiny else "adamw",
            learning_rate=3e-3 if tiny else 2e-4,
            warmup_steps=30 if tiny else 1_000,
        ),
        loss=LossConfig(turn=0.6, phone=1.0, word=2.0, tag=1.0, ctc=0.0),
        training=TrainingConfig(
            steps={"tiny": 620, "voice": 4_500}.get(size, 100_000),
            log_every=10 if tiny else 100,
            checkpoint_every=280 if tiny else 2_000,
            codes_dropout=0.7,
            trainable=ALL_BUT_VISION if size == "voice" else ("",),
        ),
    )
