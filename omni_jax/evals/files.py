"""Where an evaluation leaves its results in a run's workdir."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.json"  # one flat object
RECORDS_FILE = "records.json"  # family -> examples
SCENES = "scenes"
SAMPLES = "samples"


def evaluation_directory(workdir: Path) -> Path:
    return workdir / "evaluation"


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: written beside, then renamed. NaN is an error, JSON has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
