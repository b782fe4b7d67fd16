"""The report's figures of training and of single replies: loss curves, spectrograms, latency, metric ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from omni_jax.report.marks import Mark, mark_value
from omni_jax.report.style import BAD, FLOOR, GOOD, INK, LINE, MUTED, OWN, PART_COLOURS, as_png_uri, as_svg, bare
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

SMOOTHING = 0.8


def loss_curves(stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One panel a stage: the smoothed total and its terms, from the records of metrics.jsonl. Inline SVG."""
    figure, panels = plt.subplots(1, len(stages), figsize=(2.9 * len(stages), 2.6), squeeze=False)
    for axes, (stage, records) in zip(panels[0], stages.items(), strict=True):
        _stage_panel(axes, stage, records)
    figure.tight_layout(w_pad=1.6)
    return as_svg(figure)


def _stage_panel(axes: Axes, stage: str, records: Sequence[Mapping[str, Any]]) -> None:
    steps = np.array([record["step"] for record in records])
    for name, colour in PART_COLOURS.items():
        # A term that a stage does not have, or does not have yet, is logged as 0.
        values = np.array([record["parts"].get(name) or np.nan for record in records])
        if np.isfinite(values).any():
            axes.plot(steps, _smooth(values), color=colour, linewidth=1.1, alpha=0.85, label=name)
    axes.plot(steps, _smooth([record["loss"] for record in records]), color=INK, linewidth=1.9, label="total")
    axes.set_title(stage)
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.legend(frameon=False, fontsize=6.8, handlelength=1.1, labelspacing=0.25, loc="upper right")


def _smooth(values: Sequence[float]) -> np.ndarray:
    """Exponential mean with a start at the first value; gaps stay gaps."""
    smoothed, mean = [], None
    for value in values:
        if np.isfinite(value):
            mean = value if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * value
        smoothed.append(mean if np.isfinite(value) else np.nan)
    return np.array(smoothed, float)


def spectrogram_pair(target: Float[np.ndarray, " N"], generated: Float[np.ndarray, " M"]) -> str:
    """Recording of the reply above, what the model said below, on one time scale in seconds. PNG data URI."""
    length = max(len(target), len(generated))
    seconds = length / SPEECH_SAMPLE_RATE_HZ
    figure, panels = plt.subplots(2, 1, figsize=(4.6, 3.1), sharex=True)
    for axes, wav, title in zip(panels, (target, generated), ("recording", "generated")):
        padded = np.pad(wav, (0, length - len(wav)))
        axes.imshow(
            _log_spectrogram(padded),
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, seconds, 0, 8),
            vmin=-80,
            vmax=0,
        )
        axes.set_ylabel(f"{title}\nkHz", fontsize=7.5)
        axes.set_yticks([0, 4, 8])
    panels[1].set_xlabel("seconds")
    figure.tight_layout(h_pad=0.4)
    return as_png_uri(figure)


def _log_spectrogram(wav: Float[np.ndarray, " N"]) -> np.ndarray:
    """dB relative to the loudest bin, 0 to 8 kHz, 10 ms frames."""
    window, hop = 1024, 240
    padded = np.pad(wav, (window // 2, window // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1))[:, : window * 8000 // SPEECH_SAMPLE_RATE_HZ] ** 2
    return 10 * np.log10(power.T / max(power.max(), 1e-9) + 1e-9)


def latency_histogram(first_audio_ms: Sequence[float]) -> str:
    """Distribution of the time to the first sound; negative is before the user has ended. Inline SVG."""
    figure, axes = plt.subplots(figsize=(5.6, 1.9))
    values = np.asarray(first_audio_ms)
    edges = np.arange(np.floor(values.min() / 80) * 80, np.ceil(values.max() / 80) * 80 + 81, 80)
    counts, _ = np.histogram(values, edges)
    colours = [BAD if edge < 0 else OWN for edge in edges[:-1]]
    axes.bar(edges[:-1] + 40, counts, width=72, color=colours)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_ylim(top=max(counts) * 1.25)
    axes.annotate("user has ended", (0, max(counts) * 1.2), (4, 0), textcoords="offset points", fontsize=7.5, va="top")
    axes.set_xlabel("milliseconds from the user's last sound to the model's first")
    axes.set_ylabel("answers")
    return as_svg(figure)


def metric_range(mark: Mark, report: Mapping[str, Any], met: bool | None) -> str:
    """A small bar: grey tick = floor, dark tick = mark, line = 95 % interval, dot = value. Inline SVG."""
    value, (low, high) = report[mark.key], report.get(f"{mark.key}_ci") or (None, None)
    floor, wanted = report.get(f"{mark.key}_floor"), mark_value(mark, report)
    shown = [number for number in (value, low, high, floor, wanted) if number is not None]
    left, right = (0.0, 1.0) if mark.unit == "share" and max(shown) <= 1 else (min(0.0, *shown), 1.08 * max(shown))
    figure, axes = plt.subplots(figsize=(2.1, 0.26))
    axes.set_xlim(left - 0.02 * (right - left), right + 0.02 * (right - left))
    axes.set_ylim(-1, 1)
    axes.plot([left, right], [0, 0], color=LINE, linewidth=4, solid_capstyle="round", zorder=1)
    colour = {True: GOOD, False: BAD, None: MUTED}[met]
    if floor is not None:
        axes.plot([floor, floor], [-0.75, 0.75], color=FLOOR, linewidth=2, zorder=2)
    if wanted is not None:
        axes.plot([wanted, wanted], [-0.95, 0.95], color=INK, linewidth=1.4, zorder=3)
    if low is not None and high is not None:
        axes.plot([low, high], [0, 0], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round", zorder=4)
    axes.plot([value], [0], marker="o", markersize=6, color=colour, zorder=5)
    bare(axes)
    return as_svg(figure)
