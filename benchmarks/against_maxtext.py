"""A training step of MaxText 0.2.5 and ours by turns in one process: the dense model of docs/scaling.md, on a CPU.

JAX_PLATFORMS=cpu python -m benchmarks.against_maxtext [--steps=5] [--remat=full,minimal,none]

Needs an environment with `pip install 'maxtext[tpu]==0.2.5'` (Python 3.12). Rates are model FLOPs, by the convention of
omni_jax/training/model_flops.py, as a share of the machine's rate for a large float32 product, measured in every turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import maxtext
from flax import nnx
from flax.core.spmd import logical_axis_rules
from maxtext.configs import pyconfig
from maxtext.trainers.pre_train import train
from maxtext.utils import maxtext_utils, sharding, train_utils

from benchmarks.train_step import benchmark_config, make_step, matmul_flops, timed
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.model_flops import model_flops

SETTINGS = {
    **{"run_name": "side_by_side", "hardware": "cpu", "dataset_type": "synthetic", "enable_checkpointing": False},
    **{"steps": 1000, "dtype": "float32", "attention": "dot_product", "enable_goodput_recording": False},
    **{"skip_jax_distributed_system": True},
    **{"base_num_decoder_layers": 8, "base_emb_dim": 512, "base_mlp_dim": 1408, "vocab_size": 32_000},
    **{"base_num_query_heads": 8, "base_num_kv_heads": 4, "head_dim": 64},
    **{"per_device_batch_size": 4, "max_target_length": 512},
}


def maxtext_step(remat: str) -> Callable[[], Any]:
    """A training step that goes on where its last call ended; returns the metrics."""
    base = Path(maxtext.__file__).parent / "configs" / "base.yml"
    settings = SETTINGS | {"remat_policy": remat, "base_output_directory": tempfile.mkdtemp()}
    config = pyconfig.initialize(["train", str(base), *(f"{name}={value}" for name, value in settings.items())])
    _, _, shardings, _, mesh, *_, state = train_utils.setup_train_loop(config, None)
    graph, state = nnx.split(state)
    params_shardings, shardings = sharding.maybe_update_params_sharding_with_opt(config, shardings)
    jitted, _ = train_utils.jit_train_and_eval_step(
        config, graph, mesh, state, shardings, train.train_step, params_shardings=params_shardings
    )
    with jax.set_mesh(mesh), logical_axis_rules(config.logical_axis_rules):
        rows = sharding.get_input_data_sharding(config, mesh)
        batch = train.make_synthetic_batch(config, maxtext_utils.get_shaped_batch(config, batch_sharding=rows))
        compiled = jitted.lower(state, batch).compile()

    def step() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--remat", default="full,minimal,none")
    options = parser.parse_args()
    keep_freed_memory()  # as the trainer does; both sides profit
    for remat in options.remat.split(","):
        config = benchmark_config("cpu", remat)
        steps = {} if remat == "none" else {"MaxText": maxtext_step(remat)}  # which has no such policy
        steps["ours"] = make_step(config)
        taken: dict[str, list[float]] = {name: [] for name in steps}
        rates = []
        for turn in range(options.steps + 1):
            rates.append(matmul_flops("float32"))
            for name, step in steps.items():
                seconds = timed(step)
                if turn:  # the first warms up
                    taken[name].append(seconds)
        print(_row(remat, taken, model_flops(config), median(rates)), flush=True)


def _row(remat: str, taken: dict[str, list[float]], flops: float, rate: float) -> str:
    parts = [
        f"{name} {median(seconds):.2f} s (least {min(seconds):.2f}), {flops / median(seconds) / rate:.0%} of the rate"
        for name, seconds in taken.items()
    ]
    if "MaxText" in taken:
        ratio = median(ours / theirs for ours, theirs in zip(taken["ours"], taken["MaxText"], strict=True))
        parts.append(f"ours / MaxText {ratio:.2f}")
    return f"{remat:8} products at {rate / 1e9:.0f} GFLOP/s; " + "; ".join(parts)


if __name__ == "__main__":
    main()
