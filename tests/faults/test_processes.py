"""Several processes: other numbers of them, one that dies, one that freezes."""

import os
import signal
import socket
import time

import numpy as np
import pytest
from toy_runs import curve, finish, launch, process_ids, start, wait_for_step

RELATIVE = 1e-5  # losses on another number of processes
STALL_TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir, 40, "--step_s=0"))
    return curve(workdir)


def assert_same(found, expected):
    assert [step for step, *_ in found] == [step for step, *_ in expected]
    np.testing.assert_allclose([values[1:] for values in found], [values[1:] for values in expected], rtol=RELATIVE)


def test_four_then_two_then_one_then_four_processes(whole, tmp_path):
    for part, processes in enumerate((4, 2, 1, 4), start=1):
        finish(launch(tmp_path, processes, 10 * part, "--step_s=0", launcher=["--max_restarts=0"]))
    assert_same(curve(tmp_path), whole)


@pytest.mark.parametrize(("rank", "number"), [(2, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGSTOP)])
def test_a_lost_process_is_named_and_the_launcher_starts_again(whole, tmp_path, rank, number):
    flags = ("--step_s=0.1", "--checkpoint_every=5", f"--stall_timeout_s={STALL_TIMEOUT_S}")
    process = launch(tmp_path, 4, 40, *flags, launcher=["--max_restarts=1", "--grace_s=15"])
    pids = process_ids(process)
    wait_for_step(tmp_path, 8, process)
    os.kill(pids[rank], number)
    lost = time.monotonic()
    others = [pid for pid in pids if pid != pids[rank]]
    while any(_is_alive(pid) for pid in others):
        assert time.monotonic() - lost < STALL_TIMEOUT_S + 30, "the others have not noticed"
        time.sleep(0.1)
    noticed_s = time.monotonic() - lost
    output = finish(process)
    said = output + "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    name = f"process {rank} ({socket.gethostname()}, pid {pids[rank]})"
    print(f"{signal.Signals(number).name} of rank {rank}: the others ended after {noticed_s:.1f} s")
    assert f"no sign of life from {name}" in said
    assert noticed_s < STALL_TIMEOUT_S + 10
    assert_same(curve(tmp_path), whole)


def test_a_run_goes_on_with_the_processes_that_are_left_and_then_with_all_again(whole, tmp_path):
    flags = ("--step_s=0.2", "--checkpoint_every=5")
    process = launch(tmp_path, 4, 40, *flags, launcher=["--restart_on_topology_change"])
    pids = process_ids(process)
    wait_for_step(tmp_path, 8, process)
    os.kill(pids[2], signal.SIGKILL)
    wait_for_step(tmp_path, 20, process)
    process.send_signal(signal.SIGUSR1)
    output = finish(process)
    assert "start 2 of 4, 2 processes" in output
    assert "all are back; start with 4 processes" in output
    assert_same(curve(tmp_path), whole)


ONE_DIES_AND_THE_OTHERS_WAIT = """
import os, signal, time

if os.environ["JAX_NUM_PROCESSES"] == "4":
    if os.environ["JAX_PROCESS_ID"] == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60.0)
"""


def test_processes_that_the_launcher_itself_has_to_kill_are_not_lost(tmp_path):
    program = tmp_path / "wait.py"
    program.write_text(ONE_DIES_AND_THE_OTHERS_WAIT)
    launcher = ["--restart_on_topology_change", "--grace_s=1"]
    assert "start 2 of 4, 2 processes" in finish(launch(tmp_path, 4, 0, launcher=launcher, program=program))


ROLL_CALL = """
import sys, time
sys.path.insert(0, ".")
from omni_jax.parallel import multihost

multihost.initialize()
if multihost.is_first():
    try:
        multihost.gather("roll call", timeout_s=2.0)
    except multihost.PeerError as error:
        print(error)
else:
    time.sleep(6.0)
"""


def test_a_barrier_names_the_process_that_does_not_come(tmp_path):
    program = tmp_path / "roll_call.py"
    program.write_text(ROLL_CALL)
    process = launch(tmp_path, 2, 0, program=program)
    _, absent = process_ids(process)
    said = finish(process)
    assert f"roll call: no word within 2 s from process 1 ({socket.gethostname()}, pid {absent})" in said


def _is_alive(pid):
    """Running or frozen; a process that ended and waits for its parent does not count."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
