"""A long run with evaluations and saves: does its memory grow, does it leave files open?

python benchmarks/soak.py --config=configs/pretrain.py:tiny --workdir=/tmp/soak --evaluate_every=100 \
    --config.training.steps=2000 --config.training.checkpoint_every=100 [--config.data.rows=2 ...]

Looks at the process twice a second. The first quarter of the steps fills caches, the later ones must be alike, else the
exit code is 1; by steps, because on a busy machine the first one may last half of the time. Linux only.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from omni_jax.errors import run_main
from omni_jax.train import parse_flags, use_compilation_cache
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.metrics import METRICS_FILE, read_metrics
from omni_jax.training.stages import run_stage

PERIOD_S = 0.5
TAIL_BYTES = 1 << 16  # more than a line
MAX_GROWTH = 0.02  # of the resident memory, from the second quarter to the last


class Sample(NamedTuple):
    step: int  # logged last; 0 before the first
    memory_bytes: int  # resident
    handles: int  # open files, pipes and sockets
    threads: int


def main(arguments: Sequence[str] | None = None) -> int:
    keep_freed_memory()
    config, workdir, operations = parse_flags(sys.argv if arguments is None else ["soak", *arguments])
    use_compilation_cache()
    samples: list[Sample] = []
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(Path(workdir) / METRICS_FILE, samples, ended))
    watcher.start()
    began = time.monotonic()
    try:
        run_stage(config, workdir, operations)
    finally:  # a run that is stopped ends, too
        ended.set()
        watcher.join()
    seconds = time.monotonic() - began
    records = read_metrics(workdir)
    evaluations = sum("held_out/loss" in record["parts"] for record in records)
    saves = config.training.steps // config.training.checkpoint_every
    print(f"{config.training.steps} steps, {saves} saves, {evaluations} evaluations in {seconds:.0f} s")
    return show(samples, config.training.steps)


def watch(metrics: Path, samples: list[Sample], ended: threading.Event) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while not ended.wait(PERIOD_S):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        handles = len(os.listdir("/proc/self/fd"))
        samples.append(Sample(last_step(metrics), pages * page, handles, threading.active_count()))


def last_step(metrics: Path) -> int:
    """Of the last whole line."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def show(samples: Sequence[Sample], steps: int) -> int:
    """A table of the quarters from the first step on. 1 where the last one needs more than the second, else 0."""
    table = np.array(samples)
    edges = np.linspace(0, steps, 5)
    quarters = [table[(table[:, 0] > low) & (table[:, 0] <= high)] for low, high in itertools.pairwise(edges)]
    print("| quarter | memory, median MB | most MB | open files, median | most | threads, most |")
    print("|---|---|---|---|---|---|")
    for number, quarter in enumerate(quarters, start=1):
        memory, handles = quarter[:, 1] / 1e6, quarter[:, 2]
        print(
            f"| {number} | {np.median(memory):.1f} | {memory.max():.1f} | {np.median(handles):.0f} | "
            f"{handles.max():.0f} | {quarter[:, 3].max():.0f} |"
        )
    second, last = np.median(quarters[1], axis=0), np.median(quarters[3], axis=0)
    growth = last[1] / second[1] - 1
    print(f"memory {100 * growth:+.2f} %, open files {last[2] - second[2]:+.0f}")
    return int(growth > MAX_GROWTH or last[2] > second[2])


if __name__ == "__main__":
    run_main(main)
