"""Runs the trainer as several processes on this machine, and starts them again when one of them dies or hangs.

python launch/local.py --processes=4 -- --config=configs/pretrain.py:tiny --workdir=runs/mine

What follows `--` goes to `python -m omni_jax.train`. On CPUs each process has one device and gloo carries the
collectives. Process 0 speaks; the others write to <workdir>/logs/. SIGTERM and Ctrl-C are passed on.
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
FINAL_CODES = (0, 2, 130, 143)  # done, an error that a restart does not mend, stopped by a signal
POLL_S = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    flags, command = parse(sys.argv[1:] if arguments is None else list(arguments))
    stop = _StopNotice()
    for attempt in range(flags.max_restarts + 1):
        group = start(flags, command)
        code = watch(group, flags.grace_s, stop)
        if code in FINAL_CODES or stop.number:
            return code
        if attempt < flags.max_restarts:
            print(f"launcher: exit code {code}; start {attempt + 2} of {flags.max_restarts + 1}", flush=True)
    print(f"launcher: gave up after {flags.max_restarts} restarts", file=sys.stderr)
    return code


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's flags, and the trainer's."""
    rest = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="launch/local.py", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--program", default="-m omni_jax.train", help="what python runs")
    parser.add_argument("--max_restarts", type=int, default=3)
    parser.add_argument("--grace_s", type=float, default=60.0, help="for the others, when one process has ended")
    flags = parser.parse_args(arguments[:rest])
    command = arguments[rest + 1 :]
    if not any(argument.startswith("--workdir=") for argument in command):
        parser.error("give the trainer's flags after --, with --workdir=DIR")
    return flags, command


def start(flags: argparse.Namespace, command: Sequence[str]) -> list[subprocess.Popen]:
    """All processes, on a fresh port."""
    address = f"127.0.0.1:{free_port()}"
    workdir = next(argument.partition("=")[2] for argument in command if argument.startswith("--workdir="))
    logs = Path(workdir) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    group = []
    for rank in range(flags.processes):
        environment = os.environ | {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(flags.processes),
            "JAX_PROCESS_ID": str(rank),
        }
        log = None if rank == 0 else (logs / f"process_{rank}.txt").open("ab")
        arguments = [sys.executable, *flags.program.split(), *command]
        group.append(
            subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        )
        if log:
            log.close()
    print(f"launcher: processes {[process.pid for process in group]}", flush=True)
    return group


def watch(group: Sequence[subprocess.Popen], grace_s: float, stop: _StopNotice) -> int:
    """Waits for all; once one has failed the others have `grace_s` to say what they see. The worst exit code."""
    passed_on, deadline = 0, None
    while None in [process.poll() for process in group]:
        if stop.count > passed_on:
            passed_on = stop.count
            for process in group:
                if process.poll() is None:
                    process.send_signal(stop.number)
        if deadline is None and any(process.returncode for process in group):
            deadline = time.monotonic() + grace_s
        if deadline is not None and time.monotonic() > deadline:
            for process in group:
                process.kill()
        time.sleep(POLL_S)
    codes = [process.returncode for process in group]
    failed = [code for code in codes if code not in FINAL_CODES]
    return failed[0] if failed else max(codes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _StopNotice:
    """Notes SIGTERM and SIGINT, to be passed on."""

    def __init__(self) -> None:
        self.number = self.count = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self.number, self.count = number, self.count + 1


if __name__ == "__main__":
    sys.exit(main())
