"""Runs one command as several JAX processes on this machine, as a cluster would: for trying multi-host code.

python -m launch.local --processes=2 -- python -m omni_jax.train --config=configs/pretrain.py:tiny --workdir=runs/two

Every process gets OMNI_NUM_PROCESSES, OMNI_PROCESS_ID and JAX_COORDINATOR_ADDRESS. The first one that fails stops the
others, and its exit code is the launcher's.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time

POLL_SECONDS = 0.2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list[str], processes: int) -> list[subprocess.Popen]:
    coordinator = f"127.0.0.1:{free_port()}"
    workers = []
    for index in range(processes):
        variables = {
            "OMNI_NUM_PROCESSES": str(processes),
            "OMNI_PROCESS_ID": str(index),
            "JAX_COORDINATOR_ADDRESS": coordinator,
        }
        workers.append(subprocess.Popen(command, env=os.environ | variables))
    return workers


def wait(workers: list[subprocess.Popen]) -> int:
    """The first non-zero exit code, once all have ended; a failure or Ctrl-C ends the rest."""
    try:
        while True:
            codes = [worker.poll() for worker in workers]
            failed = [code for code in codes if code]
            if failed:
                return failed[0]
            if all(code == 0 for code in codes):
                return 0
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return 130
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in workers:
            worker.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many processes to start")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- followed by the command")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command: give it after --")
    if arguments.processes < 1:
        parser.error(f"--processes={arguments.processes}: want at least 1")
    return wait(start(command, arguments.processes))


if __name__ == "__main__":
    sys.exit(main())
