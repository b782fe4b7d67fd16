"""A dialogue over time: the user's voice and state, the model's text frame by frame, the model's voice."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from omni_jax.report.scene_files import SceneFiles
from omni_jax.report.style import INK, LINE, MUTED, OWN, STATE_COLOURS, USER, as_svg, bare
from omni_jax.types import FRAME_RATE_HZ, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ, TURN_DELAY_FRAMES, TurnState

TEXT_LANES = 3
POINTS_A_SECOND = 100
CONTROL_COLOURS = {
    "LISTEN": "#eef1f4",
    "WAIT": "#f6ddc9",
    "EPAD": "#f0c39e",
    "SPEAK": "#3a8f63",
    "INTERRUPT": "#c2513d",
    "BACKCHANNEL": "#b8912f",
    "END_OF_TURN": "#22303c",
}
WORD_COLOUR = "#d9783a"
WORD_START = "\u2581"


def dialogue_strip(scene: SceneFiles) -> str:
    """Four rows on one time axis. Inline SVG."""
    seconds = len(scene.facts["pieces"]) / FRAME_RATE_HZ
    figure, rows = plt.subplots(5, 1, figsize=(11.6, 3.5), sharex=True, height_ratios=(1, 0.24, 1.05, 0.24, 1))
    _wave(rows[0], scene.user_wav, LISTEN_SAMPLE_RATE_HZ, USER, "user")
    _states(rows[1], np.array(scene.facts["turn"]))
    _words(rows[2], scene.facts["pieces"], seconds)
    _controls(rows[3], scene.facts["pieces"], scene.facts["controls"])
    _wave(rows[4], scene.own_wav, SPEECH_SAMPLE_RATE_HZ, OWN, "model")
    if scene.facts["event_ms"] is not None:
        for axes in rows:
            axes.axvline(scene.facts["event_ms"] / 1000, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    rows[-1].set_xlim(0, seconds)
    rows[-1].set_xticks(np.arange(0, seconds, 1))
    rows[-1].set_xlabel("seconds")
    figure.subplots_adjust(hspace=0.08)
    return as_svg(figure)


def words_with_times(pieces: list[str]) -> list[tuple[float, str]]:
    """(start in seconds, word) from one text piece a frame; pieces without a word mark go on with the last word."""
    words: list[tuple[float, str]] = []
    for frame, piece in enumerate(pieces):
        if not piece:
            continue
        if piece.startswith(WORD_START) or not words:
            words.append((frame / FRAME_RATE_HZ, piece.lstrip(WORD_START)))
        else:
            start, word = words[-1]
            words[-1] = (start, word + piece)
    return [(start, word) for start, word in words if word]


def _wave(axes: Axes, wav: Float[np.ndarray, " N"], rate_hz: int, colour: str, title: str) -> None:
    size = rate_hz // POINTS_A_SECOND
    peaks = np.abs(wav[: len(wav) // size * size]).reshape(-1, size).max(1)
    scaled = peaks / max(float(peaks.max(initial=0.0)), 0.05)
    times = (np.arange(len(peaks)) + 0.5) / POINTS_A_SECOND
    axes.fill_between(times, -scaled, scaled, color=colour, linewidth=0)
    axes.axhline(0, color=LINE, linewidth=0.7, zorder=0)
    axes.set_ylim(-1.1, 1.1)
    _row(axes, title)


def _states(axes: Axes, turn: Float[np.ndarray, "T R"]) -> None:
    """Each state at its own frame, not at that in which it was named."""
    _colour_frames(axes, [STATE_COLOURS[state] for state in turn[TURN_DELAY_FRAMES:].argmax(1)])
    _row(axes, "heard as")


def _words(axes: Axes, pieces: list[str], seconds: float) -> None:
    for index, (start, word) in enumerate(words_with_times(pieces)):
        lane = index % TEXT_LANES
        axes.plot([start, start], [-1, 0.62 - 0.62 * lane], color=LINE, linewidth=0.8, zorder=0)
        axes.text(start, 0.55 - 0.62 * lane, word, fontsize=9, color=INK, ha="left", va="center")
    axes.set_ylim(-1, 1)
    axes.set_xlim(0, seconds)
    _row(axes, "own text")


def _controls(axes: Axes, pieces: list[str], controls: list[str | None]) -> None:
    of_control = [CONTROL_COLOURS.get(control or "", MUTED) for control in controls]
    _colour_frames(axes, [WORD_COLOUR if piece else colour for piece, colour in zip(pieces, of_control, strict=True)])
    _row(axes, "own state")


def _colour_frames(axes: Axes, colours: list[str]) -> None:
    """One colour a frame; frames of one colour in a row are drawn as one, without seams."""
    start = 0
    for colour, run in itertools.groupby(colours):
        end = start + len(list(run))
        axes.axvspan(start / FRAME_RATE_HZ, end / FRAME_RATE_HZ, color=colour, linewidth=0)
        start = end


def _row(axes: Axes, title: str) -> None:
    bottom = axes.get_subplotspec().is_last_row()
    if bottom:
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    else:
        bare(axes)
        axes.tick_params(length=0)
    axes.text(-0.008, 0.5, title, transform=axes.transAxes, ha="right", va="center", fontsize=8.5, color=MUTED)


def legend_items() -> dict[str, list[tuple[str, str]]]:
    """(colour, name) of the two colour rows."""
    states = [(STATE_COLOURS[state], state.name.lower().replace("_", " ")) for state in TurnState]
    own = [(CONTROL_COLOURS[name], name.lower().replace("_", " ")) for name in CONTROL_COLOURS]
    return {"heard as": states, "own state": [*own, (WORD_COLOUR, "a piece of a word")]}
