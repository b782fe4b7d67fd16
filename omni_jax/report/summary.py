"""report.json: the evaluation's metrics, what the run cost, and the first and last loss of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_jax.errors import UserError
from omni_jax.evals.files import METRICS_FILE, RECORDS_FILE, evaluation_directory
from omni_jax.training.metrics import read_metrics

STAGES = ("codec", "pretrain", "perceive", "align", "duplex")
RESOURCES_FILE = "resources.json"


def read_stages(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """The logged steps of each stage that has any, in the order of training."""
    stages = {stage: read_metrics(workdir / stage) for stage in STAGES}
    return {stage: records for stage, records in stages.items() if records}


def read_records(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """The evaluation's examples by metric family."""
    return _read_json(evaluation_directory(workdir) / RECORDS_FILE)


def summary(workdir: Path, stages: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The content of report.json. Raises UserError where `workdir` was not evaluated.

    `wall_seconds` and `peak_memory_bytes` are of the whole quickstart, from its resources.json; where there is none
    (single stages were trained by hand), they are the stages' and the evaluation's logged seconds, and null.
    """
    report = _read_json(evaluation_directory(workdir) / METRICS_FILE)
    resources = workdir / RESOURCES_FILE
    measured = _read_json(resources) if resources.exists() else {}
    seconds = sum(records[-1]["seconds"] for records in stages.values()) + report["evaluation_seconds"]
    report |= {"wall_seconds": measured.get("wall_seconds", seconds)}
    report |= {"peak_memory_bytes": measured.get("peak_memory_bytes")}
    for stage, records in stages.items():
        report |= {f"{stage}_first_loss": records[0]["loss"], f"{stage}_last_loss": records[-1]["loss"]}
        report |= {f"{stage}_steps": records[-1]["step"], f"{stage}_seconds": records[-1]["seconds"]}
    return report


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"{path} is missing: evaluate first, "
            "python -m omni_jax.evaluate --config=configs/eval.py:tiny --workdir=DIR"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): evaluate again") from error
