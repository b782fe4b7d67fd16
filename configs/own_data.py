"""A model of your own folder (or WebDataset, Shar, Parquet, ArrayRecord, TFDS): text, speech recognition and captions.

python -m omni_jax.train --config=configs/own_data.py:tiny --workdir=runs/own \
    --config.data.sources.mine=folder:my/folder

The folder has a metadata.jsonl with one object a line (omni_jax/input_pipeline/readers/folder.py shows which). Leave
out a task that it has nothing for: --config.data.tasks.caption=0. Add others: spoken_qa and written_qa need replies,
see labels, frame_asr times of words, tts speech codes and --config.data.speech_positions=64 (docs/data.md).

Hardware: 2 CPU cores, minutes for `tiny`.
Expected: text loss falls; how far is up to the data.
"""

from ml_collections import ConfigDict

from configs.sizes import LAPTOP, omni_config
from omni_jax.config import DataConfig, LossConfig, OptimizerConfig, TrainingConfig

TASKS = {"text": 0.2, "asr": 0.4, "caption": 0.4, "hear": 0.0, "see": 0.0, "frame_asr": 0.0, "picture_qa": 0.0}
TASKS |= {"spoken_qa": 0.0, "written_qa": 0.0, "tts": 0.0, "frame_tts": 0.0, "dialogue": 0.0}


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: one of configs/sizes.py."""
    tiny = size in LAPTOP
    return omni_config(
        "perceive",
        size,
        data=DataConfig(
            sources={"mine": "folder:my/folder"},
            tasks=TASKS,
            row_positions=256 if tiny else 1_024,
            rows=4 if tiny else 64,
            audio_slots=192 if tiny else 768,
            patches=256 if tiny else 2_048,
            speech_positions=0,
            max_segments=8 if tiny else 24,
        ),
        optimizer=OptimizerConfig(
            name="muon" if tiny else "adamw",
            learning_rate=2e-3 if tiny else 4e-4,
            warmup_steps=30 if tiny else 1_000,
        ),
        loss=LossConfig(ctc=0.3),
        training=TrainingConfig(
            steps=200 if tiny else 100_000,
            log_every=10 if tiny else 100,
            checkpoint_every=100 if tiny else 2_000,
        ),
    )
