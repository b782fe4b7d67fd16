"""What saves cost a training: how long one blocks the step, what goes on behind it costs the steps, a verified restore.

python benchmarks/checkpoint_cost.py --config=configs/pretrain.py:tiny --workdir=/tmp/cost

Real steps on the real stream, a save every so many of them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.config import Config
from omni_jax.errors import run_main
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh
from omni_jax.train import parse_flags, use_compilation_cache
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.omni_stage import compile_on_first_batch
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.state import TrainState, init_state

SAVES, STEPS_A_SAVE = 6, 20
BEHIND = 6  # steps after a save that may run beside its background part


class Costs(NamedTuple):
    state: TrainState
    blocked_s: list[float]  # in `save`, by save
    whole_s: list[float]  # until committed
    step_s: np.ndarray  # [SAVES, STEPS_A_SAVE], the save itself left out


def main(arguments: Sequence[str] | None = None) -> int:
    keep_freed_memory()
    config, workdir, _ = parse_flags(sys.argv if arguments is None else ["cost", *arguments])
    use_compilation_cache()
    shutil.rmtree(Path(workdir) / "checkpoints", ignore_errors=True)
    checkpointer = Checkpointer(workdir)
    costs = train(config, checkpointer)
    began = time.monotonic()
    checkpointer.restore(config, costs.state.params, (costs.state.opt_state, costs.state.guard))
    show(config, costs, time.monotonic() - began)
    checkpointer.close()
    return 0


def train(config: Config, checkpointer: Checkpointer) -> Costs:
    """Steps and saves as in training/loop.py, with a clock."""
    optimizer, mesh = omni_optimizer(config), make_mesh(config.mesh)
    abstract = abstract_state(config, mesh, optimizer)
    state = init_state(lambda key: omni.init_params(config.model, key), optimizer, 0, abstract)
    step, loader = compile_on_first_batch(config, mesh, optimizer), make_loader(config)
    blocked, committed, steps = [], [], np.zeros((SAVES, STEPS_A_SAVE))
    for _ in range(3):
        state, metrics = step(state, next(loader))
    for save in range(SAVES):
        save_began = time.monotonic()
        checkpointer.save(Manifest(save, config, (0, 0)), state.params, (state.opt_state, state.guard))
        blocked.append(time.monotonic() - save_began)
        for index in range(STEPS_A_SAVE):
            began = time.monotonic()
            state, new_metrics = step(state, next(loader))
            jax.block_until_ready(metrics)  # of the step before, as the loop reads them
            metrics = new_metrics
            steps[save, index] = time.monotonic() - began
            if len(committed) == save and checkpointer.outcome() is not None:
                committed.append(time.monotonic() - save_began)
        if len(committed) == save:
            checkpointer.wait()
            committed.append(time.monotonic() - save_began)
    loader.close()
    return Costs(state, blocked, committed, steps)


def show(config: Config, costs: Costs, restored_s: float) -> None:
    arrays = jax.tree.leaves((costs.state.params, costs.state.opt_state))
    undisturbed_s = float(np.median(costs.step_s[:, BEHIND:]))
    behind_s = float(np.median((costs.step_s[:, :BEHIND] - undisturbed_s).sum(axis=1)))
    cost_s = float(np.median(costs.blocked_s)) + max(behind_s, 0.0)
    interval = config.training.checkpoint_every
    print(
        f"{config.stage}:{config.size}: {sum(leaf.nbytes for leaf in arrays) / 1e6:.0f} MB in {len(arrays)} arrays, "
        f"{SAVES} saves, {jax.device_count()} {jax.default_backend()} devices, a step {1000 * undisturbed_s:.0f} ms"
    )
    print(f"| blocks the step | {_ms(costs.blocked_s)} |")
    print(f"| until committed | {_ms(costs.whole_s)} |")
    print(f"| slows the {BEHIND} steps beside it by | median {1000 * behind_s:.0f} ms in all |")
    print(f"| of the wall time, a save every {interval} steps | {100 * cost_s / (interval * undisturbed_s):.2f} % |")
    print(f"| verified restore | {1000 * restored_s:.0f} ms |")


def _ms(seconds: Sequence[float]) -> str:
    return f"median {1000 * np.median(seconds):.0f} ms, longest {1000 * max(seconds):.0f} ms"


if __name__ == "__main__":
    run_main(main)
