"""Starting, watching and comparing runs of `toy.py`."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from omni_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
TOY = "tests/faults/toy.py"
DEADLINE_S = 240.0  # for anything to happen on a busy machine
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}


def start(workdir, steps, *flags, environment=None):
    """One process; it has a group of its own, as launchers give it. `environment`: variables to add."""
    command = [sys.executable, TOY, f"--workdir={workdir}", f"--steps={steps}", *flags]
    return _popen(command, environment)


def train(*flags, environment=None):
    """The trainer itself, compiled without LLVM's optimisations."""
    quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return _popen([sys.executable, "-m", "omni_jax.train", *flags], quick | (environment or {}))


def launch(workdir, processes, steps, *flags, launcher=(), program=TOY):
    """Several processes under launch/local.py; `launcher`: flags of its own."""
    command = ["launch/local.py", f"--processes={processes}", f"--program={program}", *launcher]
    return _popen([sys.executable, *command, "--", f"--workdir={workdir}", f"--steps={steps}", *flags])


def finish(process, code=0):
    """The output of a process that must end with `code`."""
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, output
    return output


def wait_for_step(workdir, step, process):
    wait_until(lambda: any(record["step"] >= step for record in read_metrics(workdir)), process)


def wait_until(condition, process):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def process_ids(process):
    """Pids by rank, from the launcher's line."""
    line = process.stdout.readline()
    return [int(pid) for pid in re.findall(r"\d+", line)]


def data_workers(process):
    """Pids of the processes that multiprocessing has spawned, its resource tracker left out."""
    found = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for pid in children:
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
    return found


def curve(workdir):
    """Step, loss and a checksum of the data of every logged step."""
    return [(record["step"], record["loss"], record["parts"]["rows"]) for record in read_metrics(workdir)]


def bad_steps(workdir):
    return [json.loads(line) for line in (workdir / "bad_steps.jsonl").read_text().splitlines()]


def _popen(command, environment=None):
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
