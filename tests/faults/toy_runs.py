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


def start(workdir, steps, *flags):
    """One process; it has a group of its own, as launchers give it."""
    command = [sys.executable, TOY, f"--workdir={workdir}", f"--steps={steps}", *flags]
    return _popen(command)


def launch(workdir, processes, steps, *flags, max_restarts=0):
    """Several processes under launch/local.py."""
    launcher = ["launch/local.py", f"--processes={processes}", f"--max_restarts={max_restarts}", f"--program={TOY}"]
    return _popen([sys.executable, *launcher, "--", f"--workdir={workdir}", f"--steps={steps}", *flags])


def finish(process, code=0):
    """The output of a process that must end with `code`."""
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, output
    return output


def wait_for_step(workdir, step, process):
    deadline = time.monotonic() + DEADLINE_S
    while not any(record["step"] >= step for record in read_metrics(workdir)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def process_ids(process):
    """Pids by rank, from the launcher's line."""
    line = process.stdout.readline()
    return [int(pid) for pid in re.findall(r"\d+", line)]


def curve(workdir):
    """Step, loss and a checksum of the data of every logged step."""
    return [(record["step"], record["loss"], record["parts"]["rows"]) for record in read_metrics(workdir)]


def bad_steps(workdir):
    return [json.loads(line) for line in (workdir / "bad_steps.jsonl").read_text().splitlines()]


def _popen(command):
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
