"""A real training whose data come from worker processes: one of them killed, or the training itself."""

import os
import signal
import time
from pathlib import Path

import pytest
from input_pipeline.conftest import write_corpus
from test_train import SMALL
from toy_runs import DEADLINE_S, finish, train, wait_for_step

from omni_jax.training.metrics import read_metrics
from omni_jax.training.watchdog import EXIT_STALLED

STEPS = 60  # so many that the batches read ahead do not last to the end
CRASHED = 1  # launchers start again, after this as after a stall: a worker may die with half a batch in the pipe
GONE_S = 20.0


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a training of a small model on a small corpus, in a workdir."""
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"))
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    flags = [f"--config.data.{flag}" for flag in (f"corpus={corpus}", "rows=4", "workers=2")]
    flags += [f"--config.training.{flag}" for flag in (f"steps={STEPS}", "checkpoint_every=50")]
    flags.append("--stall_timeout_s=20")

    def start(workdir):
        return train(f"--workdir={workdir}", "--config=configs/pretrain.py:tiny", *SMALL, *flags, environment=cache)

    return start


@pytest.fixture(scope="module")
def whole(tmp_path_factory, start):
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir))
    return losses(workdir)


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
def test_a_kill_is_noticed_and_changes_nothing(whole, start, tmp_path, killed):
    process = start(tmp_path)
    wait_for_step(tmp_path, 4, process)
    pids = workers(process)
    assert len(pids) >= 2
    os.kill(pids[0] if killed == "a worker" else process.pid, signal.SIGKILL)
    if killed == "a worker":
        said, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode in (CRASHED, EXIT_STALLED), said
        assert "was terminated unexpectedly with exit code -9" in said or "no progress for 20 s" in said
    else:
        process.communicate(timeout=DEADLINE_S)  # workers hold the output open
    deadline = time.monotonic() + GONE_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "workers live on without their training"
        time.sleep(0.1)
    finish(start(tmp_path))
    assert losses(tmp_path) == whole
