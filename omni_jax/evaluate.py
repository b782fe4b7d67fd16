"""Evaluates a trained model on held-out pictures, questions, voices and dialogues.

python -m omni_jax.evaluate --config=configs/eval.py:tiny --workdir=runs/quickstart

Prints the metrics as a table; writes `evaluation/metrics.json` (the metrics), `evaluation/records.json` (every
example), `evaluation/scenes/` and `samples/*.wav` (calls to hear) into the workdir.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
from rich import box
from rich.console import Console
from rich.table import Table

from omni_jax.config import EvalConfig
from omni_jax.config_dict import from_dict
from omni_jax.errors import UserError, run_main
from omni_jax.evals.files import METRICS_FILE, RECORDS_FILE, SAMPLES, SCENES, evaluation_directory, write_json
from omni_jax.evals.run import Evaluation, run_evaluation
from omni_jax.evals.scenes import write_sample, write_scene
from omni_jax.export.bundle import Bundle, load_bundle
from omni_jax.report.marks import MARKS, formatted, formatted_interval, is_met, mark_value
from omni_jax.train import read_flags, use_compilation_cache

TABLE_WIDTH = 100
SAMPLE_SUFFIX = "_0"  # the first scene of each kind becomes a sample file


def main(arguments: Sequence[str] | None = None) -> int:
    values, workdir = read_flags(sys.argv if arguments is None else ["evaluate", *arguments], "configs/eval.py:tiny")
    use_compilation_cache()
    evaluate(from_dict(EvalConfig, values.to_dict()), workdir)
    return 0


def evaluate(config: EvalConfig, workdir: str | Path) -> dict[str, Any]:
    """Runs the evaluation, prints its table, writes its files into `workdir` and returns the metrics.

    Raises UserError where there is no trained model in `workdir` or it can't be written.
    """
    workdir, start = Path(workdir), time.perf_counter()
    console = Console(width=max(TABLE_WIDTH, Console().width))  # a log file has no width of its own
    bundle = load_bundle(workdir)
    _require_writable(workdir)

    def say(line: str) -> None:
        console.print(f"[dim]{time.perf_counter() - start:4.0f} s  {line}[/dim]")

    result = run_evaluation(bundle, config, workdir, say)
    seconds = time.perf_counter() - start
    metrics = result.metrics | {"evaluation_seconds": seconds, "checkpoint_step": bundle.step}
    try:
        _write(workdir, metrics, result, bundle)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{workdir} can't be written ({error}): make room or check the permissions") from error
    console.print(metrics_table(metrics), *_skipped(metrics), sep="\n")
    console.print(f"evaluated in {seconds:.0f} s: {evaluation_directory(workdir) / METRICS_FILE}")
    return metrics


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    table = Table(title="on held-out material", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("metric", "value", "95 % interval", "floor", "ceiling", "mark", "examples"):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for mark in MARKS:
        met, wanted = is_met(mark, metrics), mark_value(mark, metrics)
        colour = {True: "green", False: "red", None: "default"}[met]
        sign = "≥" if mark.higher_is_better else "≤"
        table.add_row(
            mark.key,
            f"[{colour}]{formatted(metrics[mark.key], mark.unit)}[/{colour}]",
            formatted_interval(*metrics[f"{mark.key}_ci"], mark.unit),
            formatted(metrics[f"{mark.key}_floor"], mark.unit),
            formatted(metrics.get(f"{mark.key}_ceiling"), mark.unit),
            "" if wanted is None else f"{sign} {formatted(wanted, mark.unit)}",
            str(metrics[f"{mark.key}_num_examples"]),
        )
    return table


def _skipped(metrics: Mapping[str, Any]) -> list[str]:
    suffix = "_skipped"
    return [f"{key.removesuffix(suffix)} skipped: {why}" for key, why in metrics.items() if key.endswith(suffix)]


def _require_writable(workdir: Path) -> None:
    """Before the calls, not after them."""
    directory = evaluation_directory(workdir)
    try:
        directory.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise UserError(f"{directory} can't be written ({error.strerror}): check the permissions") from error


def _write(workdir: Path, metrics: Mapping[str, Any], result: Evaluation, bundle: Bundle) -> None:
    directory, vocabulary = evaluation_directory(workdir), bundle.vocabulary()
    shutil.rmtree(directory / SCENES, ignore_errors=True)
    for scene in result.scenes:
        write_scene(directory / SCENES / scene.name, scene, vocabulary)
        if scene.name.endswith(SAMPLE_SUFFIX):
            write_sample(workdir / SAMPLES / f"{scene.name.removesuffix(SAMPLE_SUFFIX)}.wav", scene)
    write_json(directory / RECORDS_FILE, result.records)
    write_json(directory / METRICS_FILE, metrics)


if __name__ == "__main__":
    run_main(main)
