"""The page of one training, finished or not: where its time went, step times, gradients, experts, bad steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from omni_jax.errors import UserError
from omni_jax.report.figures import loss_curves
from omni_jax.report.style import BAD, FLOOR, GOOD, INK, MUTED, OWN, TARGET, USER, as_svg
from omni_jax.training.goodput import account, goodput, read_attempts
from omni_jax.training.metrics import read_metrics

TEMPLATE = Path(__file__).parent / "training.html.j2"
TRAINING_HTML = "training.html"
COLOURS = {
    "step": GOOD,
    "compile": OWN,
    "startup": "#e9cf8a",
    "data": USER,
    "checkpoint": "#8a6fb0",
    "evaluation": "#8fbcd4",
    "restart": TARGET,
    "lost": BAD,
    "other": FLOOR,
}
PERCENTILES = (50, 90, 99)


def write_training_page(workdir: Path) -> Path:
    """Reads metrics.jsonl and goodput.json of a stage; returns the path of training.html. Raises UserError."""
    records, attempts = read_metrics(workdir), read_attempts(workdir)
    if not records or not attempts:
        raise UserError(f"{workdir}: no metrics.jsonl or goodput.json with steps in it: train first or check --workdir")
    path = workdir / TRAINING_HTML
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(**facts(records, attempts))
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): make room or check the permissions") from error
    return path


def facts(records: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template shows."""
    seconds = account(attempts)
    times = np.array([time for attempt in attempts for time in attempt["step_seconds"]]) * 1000
    last = records[-1]
    return {
        "stage": last["stage"],
        "tiles": [
            ("steps", f"{last['step']:,}"),
            ("of the wall time in steps that count", f"{100 * goodput(seconds):.0f} %"),
            ("wall time", f"{sum(seconds.values()) / 60:.1f} min"),
            ("starts and returns to a checkpoint", str(len(attempts))),
            ("skipped steps", f"{last['parts'].get('skipped_steps', 0):.0f}"),
            ("peak memory", f"{max(attempt['peak_memory_bytes'] for attempt in attempts) / 1e9:.2f} GB"),
        ],
        "time": time_chart(seconds),
        "percentiles": [(f"{p} %", f"{np.percentile(times, p):.1f} ms") for p in PERCENTILES] if len(times) else [],
        "losses": loss_curves({last["stage"]: records}),
        "held_out": lines_chart(records, "held_out", "held-out loss and its terms", logarithmic=False),
        "gradients": lines_chart(records, "gradient_norm", "gradient norm by part", logarithmic=True),
        "experts": lines_chart(records, "max_expert_share", "largest share of one expert", logarithmic=False),
    }


def time_chart(seconds: Mapping[str, float]) -> str:
    """One bar: the wall time by part. Inline SVG."""
    figure, axes = plt.subplots(figsize=(8.0, 1.3))
    left = 0.0
    for part, colour in COLOURS.items():
        value = seconds[part]
        if value > 0:
            share = 100 * value / sum(seconds.values())
            axes.barh([0], [value], left=left, color=colour, label=f"{part} {value:.0f} s ({share:.0f} %)")
            left += value
    axes.set_yticks([])
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, fontsize=7, ncol=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return as_svg(figure)


def lines_chart(records: Sequence[Mapping[str, Any]], prefix: str, title: str, logarithmic: bool) -> str | None:
    """Every metric that is `prefix` or begins with `prefix`/, over steps; None where the run has none. Inline SVG."""
    names = sorted({name for record in records for name in record["parts"] if name.split("/")[0] == prefix})
    if not names:
        return None
    figure, axes = plt.subplots(figsize=(5.6, 2.6))
    for index, name in enumerate(names):
        _line(axes, records, name, index)
    if logarithmic:
        axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=6.5, ncol=2)
    return as_svg(figure)


def _line(axes: Axes, records: Sequence[Mapping[str, Any]], name: str, index: int) -> None:
    points = [(record["step"], record["parts"][name]) for record in records if record["parts"].get(name)]
    label = name.partition("/")[2] or "all"
    colours = [INK, *COLOURS.values(), MUTED]
    if points:
        axes.plot(*zip(*points), color=colours[index % len(colours)], linewidth=1.1, label=label)
