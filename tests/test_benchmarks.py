"""Benchmarks start where little is installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# All of requirements-min.in that jax, flax, optax and ml_collections do not bring.
ABSENT = [
    *("grain", "array_record", "threadpoolctl", "sentencepiece", "soundfile", "soxr", "PIL", "safetensors"),
    *("jaxtyping", "beartype", "matplotlib", "jinja2", "jiwer", "flatbuffers"),
]


def test_the_training_step_needs_few_packages():
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); import benchmarks.train_step as b; b.CUTS['moe']"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
