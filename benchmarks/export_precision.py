"""What rounding the weights costs: bytes, and how many held-out calls are answered with the same tokens.

python benchmarks/export_precision.py runs/quickstart
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import jax
import numpy as np

from omni_jax.config import EvalConfig
from omni_jax.errors import run_main
from omni_jax.evals.examples import Call, Reply
from omni_jax.evals.held_out import asked_calls, load_held_out
from omni_jax.evals.questions import spoken_questions
from omni_jax.evals.rollout import run_calls
from omni_jax.export.bundle import load_bundle
from omni_jax.export.precision import DTYPES, unpack
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.train import use_compilation_cache

CONFIG = EvalConfig(facts=32, audio_temperature=0.0)  # greedy throughout


def main(arguments: Sequence[str] | None = None) -> int:
    (workdir,) = sys.argv[1:] if arguments is None else arguments
    use_compilation_cache()
    bundle = load_bundle(workdir)
    held = load_held_out(load_materials(bundle.config, "test"), CONFIG.call_frames)
    calls = asked_calls(held, "fact", "fact_question", CONFIG.facts, CONFIG.seed)
    original: list[Reply] = []
    print("| stored as | MB | calls with the same text ids | frames before the first other id | answered right |")
    print("|---|---|---|---|---|")
    for dtype in DTYPES:
        stored = bundle.stored(dtype).model
        replies = run_calls(dataclasses.replace(bundle, params=unpack(jax.device_get(stored))), CONFIG, calls)
        original = original or replies
        megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(stored)) / 1e6
        print(f"| {dtype} | {megabytes:.1f} | {_row(calls, original, replies)} |", flush=True)
    return 0


def _row(calls: Sequence[Call], original: Sequence[Reply], replies: Sequence[Reply]) -> str:
    differ = [np.asarray(a.text_ids) != np.asarray(b.text_ids) for a, b in zip(original, replies, strict=True)]
    before = [int(other.argmax()) if other.any() else len(other) for other in differ]
    same = sum(not other.any() for other in differ)
    right = spoken_questions(calls, replies)[0]["spoken_question_accuracy"]
    return f"{same} of {len(calls)} | {np.mean(before):.0f} of {CONFIG.call_frames} | {right:.2f}"


if __name__ == "__main__":
    run_main(main)
