"""A real training whose data come from worker processes: one of them killed, or the training itself."""

import os
import signal
import time
from pathlib import Path

import pytest
from input_pipeline.conftest import write_corpus
from test_train import SMALL
from toy_runs import DEADLINE_S, data_workers, finish, train, wait_for_step

from omni_jax.training.metrics import read_metrics

STEPS = 60  # so many that the batches read ahead do not last to the end
CRASHED = 1  # launchers start again
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


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("killed", ["a worker", "the training"])
def test_a_kill_is_noticed_and_changes_nothing(whole, start, tmp_path, killed):
    process = start(tmp_path)
    wait_for_step(tmp_path, 4, process)
    pids = data_workers(process)
    assert len(pids) >= 2
    os.kill(pids[0] if killed == "a worker" else process.pid, signal.SIGKILL)
    if killed == "a worker":
        said, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == CRASHED, said
        assert "was terminated unexpectedly with exit code -9" in said
    else:
        process.communicate(timeout=DEADLINE_S)  # workers hold the output open
    deadline = time.monotonic() + GONE_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "workers live on without their training"
        time.sleep(0.1)
    finish(start(tmp_path))
    assert losses(tmp_path) == whole
