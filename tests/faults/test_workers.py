"""A real training whose data come from worker processes: one of them killed, or the training itself."""

import os
import signal
import time
from pathlib import Path

import pytest
from toy_runs import DEADLINE_S, finish, train, wait_for_step

from omni_jax.training.metrics import read_metrics

STEPS = 10
CRASHED = 1  # launchers start again
GONE_S = 20.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir, cache))
    return losses(workdir)


def start(workdir, cache):
    flags = ("rows=2", "workers=2", "row_positions=128", "audio_slots=64", "patches=64")
    return train(
        *("--config=configs/pretrain.py:tiny", f"--workdir={workdir}"),
        *(f"--config.data.{flag}" for flag in flags),
        *(
            "--config.model.transformer.num_layers=1",
            f"--config.training.steps={STEPS}",
            "--config.training.log_every=1",
        ),
        *("--config.training.checkpoint_every=3", "--noconfig.training.tensorboard"),
        environment=cache,
    )


def losses(workdir):
    return [(record["step"], record["loss"]) for record in read_metrics(workdir)]


def workers(process):
    """Pids of the processes that multiprocessing has spawned, its resource tracker left out."""
    found = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in path.read_text().split():
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("killed", ["a worker", "the training"])
def test_a_kill_is_noticed_and_changes_nothing(whole, cache, tmp_path, killed):
    process = start(tmp_path, cache)
    wait_for_step(tmp_path, 4, process)
    pids = workers(process)
    assert len(pids) >= 2
    os.kill(pids[0] if killed == "a worker" else process.pid, signal.SIGKILL)
    if killed == "a worker":
        assert "Worker process was terminated unexpectedly with exit code -9" in finish(process, CRASHED)
    else:
        process.communicate(timeout=DEADLINE_S)  # workers hold the output open
    deadline = time.monotonic() + GONE_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "workers live on without their training"
        time.sleep(0.1)
    finish(start(tmp_path, cache))
    assert losses(tmp_path) == whole
