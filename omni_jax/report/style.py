"""Colours and matplotlib settings of the report's figures: light, calm, the same meaning everywhere."""

from __future__ import annotations

import base64
import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER = "#22303c", "#6b7a88", "#dfe5ea", "#ffffff"
USER, OWN, TARGET = "#3b7ea1", "#d9783a", "#7a8b99"
GOOD, BAD, FLOOR = "#3a8f63", "#c2513d", "#a9b4bd"
STATE_COLOURS = ("#eef1f4", "#8fbcd4", "#d5e5ef", "#e9cf8a", "#e2907a", "#bdb2d6")  # in the order of TurnState
# The loss terms that are drawn, by their name in metrics.jsonl; a term has the same colour in every stage.
PART_COLOURS = {
    "text": "#3b7ea1",
    "monologue": "#d9783a",
    "semantic": "#3a8f63",
    "acoustic": "#8a6fb0",
    "ctc": "#b8912f",
    "turn": "#c2513d",
    "word": "#5b6fb5",
    "tag": "#7a8b99",
    "mel": "#3b7ea1",
    "stft": "#8a6fb0",
    "phone": "#3a8f63",
    "adversarial": "#c2513d",
    "feature": "#b8912f",
}

plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "svg.fonttype": "path",  # the same on a machine without the font
    }
)


def bare(axes: Axes) -> None:
    """No ticks and no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def as_svg(figure: Figure) -> str:
    """The figure as an inline <svg> element; closes it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def as_png_uri(figure: Figure, dpi: int = 130) -> str:
    """The figure as a data URI; closes it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.04)
    plt.close(figure)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
