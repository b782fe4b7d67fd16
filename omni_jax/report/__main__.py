"""Writes the report of a run that was trained and evaluated.

python -m omni_jax.report --workdir=runs/quickstart
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from omni_jax.errors import run_main
from omni_jax.report.write import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.report", description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a run's workdir, with its stages and evaluation/ in it")
    path = write_report(parser.parse_args(arguments).workdir)
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    run_main(main)
