"""Writes report.json and report.html beside the stages of a run."""

from __future__ import annotations

import os
from pathlib import Path

from omni_jax.errors import UserError
from omni_jax.evals.files import SCENES, evaluation_directory, write_json
from omni_jax.report.page import render
from omni_jax.report.scene_files import read_scenes
from omni_jax.report.summary import read_records, read_stages, summary

REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def write_report(workdir: str | Path) -> Path:
    """Reads `<workdir>/<stage>/metrics.jsonl` and `<workdir>/evaluation`; returns the path of report.html.

    Raises UserError where the run was not evaluated or `workdir` can't be written.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such directory: train first (make quickstart) or check --workdir")
    stages = read_stages(workdir)
    report = summary(workdir, stages)
    page = render(report, stages, read_records(workdir), read_scenes(evaluation_directory(workdir) / SCENES))
    path = workdir / REPORT_HTML
    try:
        write_json(workdir / REPORT_JSON, report)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): make room or check the permissions") from error
    return path
