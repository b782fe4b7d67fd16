"""Runs the trainer as several processes on this machine, and starts them again when one of them dies or hangs.

python launch/local.py --processes=4 -- --config=configs/pretrain.py:tiny --workdir=runs/mine

What follows `--` goes to `python -m omni_jax.train`. On CPUs each process has one device and gloo carries the
collectives. Process 0 speaks; the others write to <workdir>/logs/. SIGTERM and Ctrl-C are passed on.

With --restart_on_topology_change a run that has lost processes goes on with those that are left, as many as divide
--processes; SIGUSR1 says that all are back: it is stopped, saved and started with --processes again.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USER_ERROR = 2  # a restart does not mend it
ENDED = (0, USER_ERROR)
FINAL_CODES = (*ENDED, 130, 143)  # stopped by a signal
POLL_S = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    flags, command = parse(sys.argv[1:] if arguments is None else list(arguments))
    notices = _Notices(flags.restart_on_topology_change)
    processes, restarts = flags.processes, 0
    while True:
        group = start(processes, flags.program, command)
        code, lost = watch(group, flags.grace_s, notices)
        if notices.stop or code in ENDED:
            return code
        if notices.all_are_back:
            notices.all_are_back, processes = False, flags.processes
            print(f"launcher: all are back; start with {processes} processes", flush=True)
            continue
        if code in FINAL_CODES:
            return code
        if restarts == flags.max_restarts:
            print(f"launcher: gave up after {flags.max_restarts} restarts", file=sys.stderr)
            return code
        restarts += 1
        if flags.restart_on_topology_change:
            processes = next_size(flags.processes, processes, lost)
        count = f"start {restarts + 1} of {flags.max_restarts + 1}, {processes} processes"
        print(f"launcher: exit code {code}; {count}", flush=True)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's flags, and the trainer's."""
    rest = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="launch/local.py", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--program", default="-m omni_jax.train", help="what python runs")
    parser.add_argument("--max_restarts", type=int, default=3)
    parser.add_argument("--restart_on_topology_change", action="store_true", help="see above")
    parser.add_argument("--grace_s", type=float, default=60.0, help="for the others, when one process has ended")
    flags = parser.parse_args(arguments[:rest])
    command = arguments[rest + 1 :]
    if not any(argument.startswith("--workdir=") for argument in command):
        parser.error("give the trainer's flags after --, with --workdir=DIR")
    return flags, command


def next_size(wanted: int, processes: int, lost: int) -> int:
    """How many processes to start after a loss: a divisor of `wanted`, so that batch and shards divide, too."""
    left = processes - lost or processes  # all of them: not the hosts are at fault
    return max(count for count in range(1, left + 1) if wanted % count == 0)


def start(processes: int, program: str, command: Sequence[str]) -> list[subprocess.Popen]:
    """All processes, on a fresh port."""
    address = f"127.0.0.1:{free_port()}"
    workdir = next(argument.partition("=")[2] for argument in command if argument.startswith("--workdir="))
    logs = (Path("runs", workdir.rpartition("/")[2]) if "://" in workdir else Path(workdir)) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    group = []
    for rank in range(processes):
        environment = os.environ | {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(rank),
        }
        log = None if rank == 0 else (logs / f"process_{rank}.txt").open("ab")
        arguments = [sys.executable, *program.split(), *command]
        group.append(
            subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        )
        if log:
            log.close()
    print(f"launcher: processes {[process.pid for process in group]}", flush=True)
    return group


def watch(group: Sequence[subprocess.Popen], grace_s: float, notices: _Notices) -> tuple[int, int]:
    """Waits for all; once one has failed the others have `grace_s` to say what they see.

    Returns the worst exit code, and how many died by a signal; those that outlasted `grace_s` do not count, since it
    was the launcher that killed them.
    """
    passed_on, deadline, killed = 0, None, []
    while None in [process.poll() for process in group]:
        if notices.count > passed_on:
            passed_on = notices.count
            send(group, notices.stop or signal.SIGTERM)
        if deadline is None and any(process.returncode for process in group):
            deadline = time.monotonic() + grace_s
        if deadline is not None and time.monotonic() > deadline:
            killed += send(group, signal.SIGKILL)
        time.sleep(POLL_S)
    codes = [process.returncode for process in group]
    if USER_ERROR in codes:  # the others only miss the one that has left with it
        return USER_ERROR, 0
    failed = [code for code in codes if code not in FINAL_CODES]
    lost = sum(process.returncode < 0 for process in group if process not in killed)
    return (failed[0] if failed else max(codes)), lost


def send(group: Sequence[subprocess.Popen], number: int) -> list[subprocess.Popen]:
    """Those that were still there."""
    running = [process for process in group if process.poll() is None]
    for process in running:
        process.send_signal(number)
    return running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Notices:
    """Notes SIGTERM and SIGINT, to be passed on, and SIGUSR1, at which the processes are stopped to be started anew."""

    def __init__(self, elastic: bool) -> None:
        self.stop = self.stops = 0  # the last signal's number, and how many
        self.all_are_back = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        if elastic:
            signal.signal(signal.SIGUSR1, self._note_return)

    @property
    def count(self) -> int:
        return self.stops + self.all_are_back

    def _note_stop(self, number: int, _: object) -> None:
        self.stop, self.stops = number, self.stops + 1

    def _note_return(self, *_: object) -> None:
        self.all_are_back = True


if __name__ == "__main__":
    sys.exit(main())
