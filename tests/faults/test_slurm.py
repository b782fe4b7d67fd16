"""launch/slurm.sbatch on a one-machine Slurm cluster: two processes, a preemption notice, queued again, resumed.

Needs root and the packages slurm-wlm and munge; the cluster lives in a temporary directory and ends with the test.
"""

import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from toy_runs import DEADLINE_S, ROOT, TOY, curve, finish, start

from omni_jax.training.metrics import read_metrics

RELATIVE = 1e-5
STEPS = 40
CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={port_2}
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def cluster(tmp_path):
    """Environment variables that make sbatch and the like talk to a cluster of this machine."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        pytest.skip("needs root, slurm-wlm and munge")
    directory = tmp_path / "slurm"
    (directory / "state").mkdir(parents=True)
    (directory / "spool").mkdir()
    directory.chmod(0o755)
    (directory / "munge.key").write_bytes(os.urandom(1024))
    (directory / "munge.key").chmod(0o600)
    host, port = socket.gethostname().partition(".")[0], 20_000 + os.getpid() % 10_000
    values = {"host": host, "directory": directory, "port": port, "port_2": port + 1, "cpus": os.cpu_count()}
    (directory / "slurm.conf").write_text(CONFIG.format(**values))
    environment = os.environ | {"SLURM_CONF": str(directory / "slurm.conf")}
    munge = [f"--{name}={directory}/munge.{end}" for name, end in MUNGE_FILES.items()]
    daemons = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-i"], ["slurmd", "-D"]]
    log = (directory / "log").open("ab")
    running = []
    for command in daemons:
        running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        time.sleep(1.0)
    yield environment
    subprocess.run(["scancel", "--full", "--user=root"], env=environment, check=False)
    for process in reversed(running):
        process.terminate()
        process.wait()
    log.close()


MUNGE_FILES = {
    "socket": "socket",
    "key-file": "key",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def wait_until(condition, what, environment):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        queue = subprocess.run(["scontrol", "show", "job"], env=environment, capture_output=True, text=True).stdout
        assert time.monotonic() < deadline, f"{what}:\n{queue}"
        time.sleep(0.5)


def test_a_preempted_job_is_queued_again_and_ends_as_if_unbroken(cluster, tmp_path):
    workdir = tmp_path / "run"
    job_environment = cluster | {"PYTHON": sys.executable, "PROGRAM": TOY, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    flags = [f"--workdir={workdir}", f"--steps={STEPS}", "--step_s=0.2", "--checkpoint_every=1000"]
    output = tmp_path / "job.txt"
    submit = ["sbatch", "--parsable", "--ntasks=2", "--ntasks-per-node=2", f"--output={output}", "launch/slurm.sbatch"]
    done = subprocess.run([*submit, *flags], cwd=ROOT, env=job_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    wait_until(lambda: len(read_metrics(workdir)) > 5, "no steps", cluster)
    subprocess.run(["scancel", "--batch", "--signal=TERM", job], env=cluster, check=True)
    wait_until(lambda: "going on from step" in output.read_text(), "not queued again", cluster)
    wait_until(lambda: len(read_metrics(workdir)) == STEPS, "not ended", cluster)
    assert "queued again" in output.read_text()
    finish(start(tmp_path / "whole", STEPS, "--step_s=0"))
    np.testing.assert_allclose(curve(workdir), curve(tmp_path / "whole"), rtol=RELATIVE)


def test_a_users_error_of_one_task_ends_the_job(cluster, tmp_path):
    """srun kills the other task and gives its code, which would be one to start again."""
    program = tmp_path / "one_fails.py"
    program.write_text("import os, sys, time\nsys.exit(2) if os.environ['SLURM_PROCID'] == '0' else time.sleep(60)\n")
    job_environment = cluster | {"PYTHON": sys.executable, "PROGRAM": str(program)}
    output = tmp_path / "job.txt"
    submit = ["sbatch", "--wait", "--ntasks=2", "--ntasks-per-node=2", f"--output={output}", "launch/slurm.sbatch"]
    done = subprocess.run(submit, cwd=ROOT, env=job_environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2, output.read_text()
    assert "queued again" not in output.read_text()
