"""launch/tpu_vm.sh without a TPU: `gcloud ... ssh` runs its command in a shell here, as a host's would."""

import os
import subprocess
import time

import pytest
from toy_runs import ROOT

GCLOUD = """#!/bin/bash
for argument; do case $argument in --command=*) exec bash -c "${argument#--command=}" ;; esac; done
"""
# Stalls at the first start; at the second it runs until it is told to stop.
PYTHON = """#!/bin/bash
echo "arguments: $*"
if [ ! -e stalled ]; then touch stalled; exit 75; fi
trap 'echo saved; exit 143' TERM
echo ready
while :; do sleep 0.1; done
"""
DEADLINE_S = 60.0


@pytest.fixture
def host(tmp_path):
    """The environment of a machine with the repository in ~/omni_jax."""
    for path, script in ((tmp_path / "bin/gcloud", GCLOUD), (tmp_path / "omni_jax/.venv/bin/python", PYTHON)):
        path.parent.mkdir(parents=True)
        path.write_text(script)
        path.chmod(0o755)
    return os.environ | {"HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def tpu_vm(host, action, *arguments):
    command = ["launch/tpu_vm.sh", action, "run1", "us-east5-a", *arguments]
    subprocess.run(command, cwd=ROOT, env=host, check=True, timeout=DEADLINE_S, capture_output=True)


def wait_for(log, text):
    deadline = time.monotonic() + DEADLINE_S
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)


def test_a_stalled_run_is_started_again_and_a_stopped_one_is_not(host, tmp_path):
    log = tmp_path / "omni_jax.log"
    tpu_vm(host, "start", "--config=configs/pretrain.py:small", "--workdir=/mnt/a run")
    wait_for(log, "ready")
    said = log.read_text()
    assert said.count("arguments: -m omni_jax.train --config=configs/pretrain.py:small --workdir=/mnt/a run") == 2
    assert "exit code 75" in said
    tpu_vm(host, "stop")
    wait_for(log, "saved")
    group = int((tmp_path / "omni_jax.pid").read_text())
    deadline = time.monotonic() + DEADLINE_S
    while is_alive(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert log.read_text().count("arguments:") == 2


def is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
