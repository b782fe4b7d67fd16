"""Seconds until an export is written, and until a process without this project says its first frame from it.

python -m benchmarks.export_start --workdir=runs/quickstart [--rounds=3]

Wall and processor seconds of whole processes, Python's start and imports included. The compile cache is empty at the
first start and filled at the others. Linux and macOS.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_FRAME = """
import numpy as np
from load import Model
model = Model(".")
silence = {"samples": np.zeros((1, 1280), np.float32), "exec_mask": np.ones(1, bool)}
state, said = model.frame(model.start(seed=0), **silence)
assert np.asarray(said["samples"]).shape == (1, 1920)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--rounds", type=int, default=3, help="starts with a filled cache")
    flags = parser.parse_args()
    print("| what | wall s | processor s |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        out, cache = Path(directory) / "exported", Path(directory) / "cache"
        export = ["-m", "omni_jax.export", f"--workdir={Path(flags.workdir).absolute()}", f"--out={out}"]
        _row("export --format=stablehlo", [*export, "--format=stablehlo"], ROOT, {"PYTHONPATH": str(ROOT)})
        # What compiles in under a second is kept, too.
        kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        _row("load, first frame, empty cache", ["-c", FIRST_FRAME], out, kept | {"PYTHONPATH": ""})
        for _ in range(flags.rounds):
            _row("load, first frame, filled cache", ["-c", FIRST_FRAME], out, kept | {"PYTHONPATH": ""})


def _row(name: str, arguments: list[str], directory: Path, variables: dict[str, str]) -> None:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | variables
    subprocess.run([sys.executable, *arguments], cwd=directory, env=environment, check=True, stdout=sys.stderr)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"| {name} | {wall:.1f} | {used:.1f} |", flush=True)


if __name__ == "__main__":
    main()
