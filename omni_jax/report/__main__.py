"""Writes the report of a run that was trained and evaluated, or the page of one stage's training.

python -m omni_jax.report --workdir=runs/quickstart
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from omni_jax.checkpoint import require_local
from omni_jax.errors import run_main
from omni_jax.report.training import write_training_page
from omni_jax.report.write import write_report
from omni_jax.training.metrics import METRICS_FILE


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, help="a run's workdir, with its stages and evaluation/ in it, or one stage's"
    )
    workdir = Path(parser.parse_args(arguments).workdir)
    require_local(workdir)
    one_stage = (workdir / METRICS_FILE).is_file()
    path = write_training_page(workdir) if one_stage else write_report(workdir)
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    run_main(main)
