"""Stage 2: to hear, to see and to say, from speech recognition, speech synthesis, captions and questions on pictures.

python -m omni_jax.train --config=configs/align.py:tiny --workdir=runs/align \
    --config.training.init_from=runs/perceive --config.training.codec_from=runs/codec

Hardware: 2 CPU cores, 2 minutes for `tiny`; `small` is for one GPU and has not been trained yet.
Expected: text loss 2.1 -> 1.4, monologue 7.1 -> 1.5, semantic 6.7 -> 3.3; words 0.5, phones 0.85 and tags 0.8 stay.
"""

from ml_collections import ConfigDict

from configs.sizes import LAPTOP, model_of, omni_config
from omni_jax.config import DataConfig, LossConfig, OptimizerConfig, TrainingConfig

TASKS = {
    "text": 0.1,
    "asr": 0.12,
    "tts": 0.02,
    "frame_asr": 0.05,
    "frame_tts": 0.1,
    "caption": 0.08,
    "picture_qa": 0.05,
    "spoken_qa": 0.42,
    "written_qa": 0.06,
}


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: one of configs/sizes.py."""
    tiny, small = size in LAPTOP, size == "small"
    has_namers = model_of(size, "align").text_posteriors
    return omni_config(
        "align",
        size,
        data=DataConfig(
            tasks=TASKS,
            row_positions=256 if tiny else 1_024,
            rows=4 if tiny else 64,
            # At `small` a tenth more than the mixture asks for; patches in whole pictures.
            audio_slots=192 if tiny else 376 if small else 768,
            patches=256 if tiny else 1_280 if small else 2_048,
            speech_positions=64 if tiny else 128 if small else 512,
            max_segments=8 if tiny else 24,
            max_labels=64 if tiny else 128,
        ),
        optimizer=OptimizerConfig(
            name="muon" if tiny else "adamw",
            learning_rate=2e-3 if tiny else 4e-4,
            warmup_steps=30 if tiny else 1_000,
        ),
        # The encoders' own targets stay strong, so that what they have learned is not lost to the transformer's noise.
        loss=LossConfig(phone=1.0, word=2.0, tag=1.0, ctc=0.2),
        training=TrainingConfig(
            steps={"tiny": 160, "voice": 1_000}.get(size, 100_000),
            log_every=10 if tiny else 100,
            checkpoint_every=80 if tiny else 2_000,
            codes_dropout=0.7,
            # The encoders stay as `perceive` has left them: these tasks show them too little to learn from. Only the
            # CTC head, which has had no targets yet, is trained on what they give.
            trainable=(
                "text_embedding",
                "modality_embedding",
                "speech_embedding",
                "audio_encoder/ctc",
                "audio_adapter",
                *(("audio_namer",) if has_namers else ()),
                "vision_adapter",
                *(("vision_namer",) if has_namers else ()),
                "transformer",
                "speech_decoder",
                "turn_head",
            ),
        ),
    )
