"""Evaluation on held-out pictures, questions, voices and dialogues.

python -m omni_jax.evaluate --config=configs/eval.py:tiny --workdir=runs/quickstart

Hardware: 2 CPU cores, one to two and a half minutes for `tiny`. `full` takes every count four times, for narrower
intervals.
"""

import dataclasses

from ml_collections import ConfigDict

from omni_jax.config import EvalConfig
from omni_jax.errors import ConfigError

SCALES = {"tiny": 1, "full": 4}
COUNTS = (
    "pictures",
    "facts",
    "repeats",
    "interruptions",
    "backchannels",
    "pauses",
    "turn_dialogues",
    "spoken_replies",
    "ceiling_replies",
    "text_batches",
)


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: tiny or full."""
    if size not in SCALES:
        raise ConfigError(f"size={size!r}: want one of {', '.join(SCALES)}, as in --config=configs/eval.py:tiny")
    config = ConfigDict(dataclasses.asdict(EvalConfig()))
    for name in COUNTS:
        config[name] *= SCALES[size]
    return config
