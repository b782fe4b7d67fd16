"""What a save costs: how long it blocks the step, how long it goes on in the background, and a verified restore.

python benchmarks/checkpoint_cost.py --config=configs/pretrain.py:tiny --workdir=/tmp/cost
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.errors import run_main
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh
from omni_jax.train import parse_flags
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.state import init_state

SAVES = 10


def main(arguments: Sequence[str] | None = None) -> int:
    config, workdir, _ = parse_flags(sys.argv if arguments is None else ["cost", *arguments])
    shutil.rmtree(Path(workdir) / "checkpoints", ignore_errors=True)
    optimizer = omni_optimizer(config)
    abstract = abstract_state(config, make_mesh(config.mesh), optimizer)
    state = init_state(lambda key: omni.init_params(config.model, key), optimizer, 0, abstract)
    jax.block_until_ready(state.params)
    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state))) / 1e6
    checkpointer = Checkpointer(workdir)
    optimizer_state = (state.opt_state, state.guard)
    blocked, whole = [], []
    for step in range(1, SAVES + 1):
        began = time.monotonic()
        checkpointer.save(Manifest(step, config, (0, 0)), state.params, optimizer_state)
        blocked.append(1000 * (time.monotonic() - began))
        checkpointer.wait()
        whole.append(time.monotonic() - began)
    began = time.monotonic()
    checkpointer.restore(config, state.params, optimizer_state)
    restored = time.monotonic() - began
    checkpointer.close()
    print(f"{config.size}: {megabytes:.0f} MB, {SAVES} saves, {jax.device_count()} {jax.default_backend()} devices")
    print(f"| blocks the step | median {np.median(blocked):.0f} ms | longest {max(blocked):.0f} ms |")
    print(f"| until committed | median {np.median(whole):.2f} s | longest {max(whole):.2f} s |")
    print(f"| verified restore | {restored:.2f} s | |")
    return 0


if __name__ == "__main__":
    run_main(main)
