"""A long run with evaluations and saves: does its memory grow, does it leave files open?

python benchmarks/soak.py --config=configs/pretrain.py:tiny --workdir=/tmp/soak --evaluate_every=100 \
    --config.training.steps=2000 --config.training.checkpoint_every=100 [--config.data.rows=2 ...]

Looks at the process twice a second; the first quarter of the run fills caches, the later ones must be alike, else the
exit code is 1. Linux only.
"""

from __future__ import annotations

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
from omni_jax.training.metrics import read_metrics
from omni_jax.training.stages import run_stage

PERIOD_S = 0.5
MAX_GROWTH = 0.02  # of the resident memory, from the second quarter to the last


class Sample(NamedTuple):
    time_s: float
    memory_bytes: int  # resident
    handles: int  # open files, pipes and sockets
    threads: int


def main(arguments: Sequence[str] | None = None) -> int:
    keep_freed_memory()
    config, workdir, operations = parse_flags(sys.argv if arguments is None else ["soak", *arguments])
    use_compilation_cache()
    samples: list[Sample] = []
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(samples, ended))
    watcher.start()
    began = time.monotonic()
    run_stage(config, workdir, operations)
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    records = read_metrics(workdir)
    evaluations = sum("held_out/loss" in record["parts"] for record in records)
    saves = config.training.steps // config.training.checkpoint_every
    print(f"{config.training.steps} steps, {saves} saves, {evaluations} evaluations in {seconds:.0f} s")
    return show(samples, records[0]["seconds"])


def watch(samples: list[Sample], ended: threading.Event) -> None:
    page, began = os.sysconf("SC_PAGE_SIZE"), time.monotonic()
    while not ended.wait(PERIOD_S):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        handles = len(os.listdir("/proc/self/fd"))
        samples.append(Sample(time.monotonic() - began, pages * page, handles, threading.active_count()))


def show(samples: Sequence[Sample], first_step_s: float) -> int:
    """A table of the quarters after the first step. 1 where the last one needs more than the second, else 0."""
    stepping = [sample for sample in samples if sample.time_s > first_step_s]
    quarters = [np.array(part) for part in np.array_split(np.array(stepping), 4)]
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
