"""An example's timeline as an SVG: one column a position, one lane for each thing that a position carries or counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from data.inspection.shown import Shown
from omni_jax.report.strip import CONTROL_COLOURS, WORD_COLOUR
from omni_jax.report.style import BAD, GOOD, INK, MUTED, STATE_COLOURS, USER
from omni_jax.types import ABSENT, TURN_DELAY_FRAMES, Control, Event, Modality, TurnState

COLUMN, LANE, GAP, LABEL = 9, 15, 4, 88
MODALITY_COLOURS = {
    Modality.PADDING: "#ffffff",
    Modality.TEXT: WORD_COLOUR,
    Modality.AUDIO: USER,
    Modality.PATCH: "#8a6fb0",
    Modality.SPEECH: "#3a8f63",
    Modality.FRAME: "#b8912f",
}
TEXT_COLOUR, CODES_COLOUR = BAD, GOOD
HEAVIEST = 10.0  # of a token as a target: a bar of full height

Piece = Callable[[int], str]


def timeline_svg(example: Shown, piece: Piece) -> str:
    """Modality, own text, its weight as a target, the codes' weight, the user's state, events."""
    fields = example.fields
    lanes = [
        ("modality", _runs(fields["modality"], lambda m: (MODALITY_COLOURS[Modality(m)], Modality(m).name.lower()))),
        ("text", _runs(fields["text"], lambda token: _token(token, piece), joined=False)),
        ("text loss", _bars(fields["text_weight"], TEXT_COLOUR, fields["text_target"], piece)),
    ]
    if (fields["codes"] != ABSENT).any():
        lanes.append(("codes loss", _bars(fields["codes_weight"].max(axis=-1), CODES_COLOUR)))
    if (fields["turn_state"] != ABSENT).any():
        lanes.append((f"user, {TURN_DELAY_FRAMES} late", _runs(fields["turn_state"], _state)))
    if (fields["user_vad"] != ABSENT).any():
        lanes.append(("voice", _runs(fields["user_vad"], lambda v: (USER if v > 0 else "#eef1f4", f"voice {v}"))))
    if fields["event"].any():
        lanes.append(("event", _runs(fields["event"], lambda e: (INK if e else "none", Event(e).name.lower()))))
    return _svg(lanes, example.num_positions)


def legend() -> dict[str, list[tuple[str, str]]]:
    """(colour, name) of each lane's colours."""
    return {
        "modality": [(colour, m.name.lower()) for m, colour in MODALITY_COLOURS.items() if m is not Modality.PADDING],
        "text": [*((c, n.lower()) for n, c in CONTROL_COLOURS.items()), (WORD_COLOUR, "a piece"), (MUTED, "a prompt")],
        "loss": [(TEXT_COLOUR, "the next text counts"), (CODES_COLOUR, "the next codes count")],
        "user": [(STATE_COLOURS[state], state.name.lower()) for state in TurnState],
    }


def _token(token: int, piece: Piece) -> tuple[str, str]:
    if token == ABSENT:
        return "none", "no text"
    if token > max(Control):
        return WORD_COLOUR, piece(token)
    name = Control(token).name
    return CONTROL_COLOURS.get(name, MUTED), name


def _state(state: int) -> tuple[str, str]:
    return ("none", "") if state == ABSENT else (STATE_COLOURS[state], TurnState(state).name.lower())


def _runs(values: np.ndarray, look: Callable[[int], tuple[str, str]], joined: bool = True) -> list[str]:
    """Equal neighbours are one rectangle, where `joined`."""
    rectangles, start = [], 0
    for value, run in itertools.groupby([int(value) for value in values]):
        length = len(list(run))
        colour, title = look(value)
        for at, width in [(start, length)] if joined else [(start + n, 1) for n in range(length)]:
            if colour != "none":
                edge = 0 if joined else 1
                rectangles.append(_rectangle(at * COLUMN, 0, width * COLUMN - edge, LANE, colour, f"{at}: {title}"))
        start += length
    return rectangles


def _bars(
    weights: np.ndarray, colour: str, targets: Sequence[int] | None = None, piece: Piece | None = None
) -> list[str]:
    """Height by weight, on a square-root scale that shows the light ones too."""
    bars = []
    for at, weight in enumerate(weights):
        if weight > 0:
            height = LANE * min(1.0, (weight / HEAVIEST) ** 0.5)
            wanted = "" if targets is None else f" for {_token(int(targets[at]), piece)[1]}"
            title = f"{at}: {weight:.3g}{wanted}"
            bars.append(_rectangle(at * COLUMN, LANE - height, COLUMN - 1, height, colour, title))
    return bars


def _rectangle(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    shape = f'<rect x="{x:g}" y="{y:.3g}" width="{width:g}" height="{height:.3g}" fill="{colour}">'
    return f"{shape}<title>{escape(title)}</title></rect>"


def _svg(lanes: list[tuple[str, list[str]]], positions: int) -> str:
    width, height = LABEL + positions * COLUMN + 8, len(lanes) * (LANE + GAP) + 16
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-size="11">']
    for number, (name, shapes) in enumerate(lanes):
        y = number * (LANE + GAP)
        parts.append(f'<text x="0" y="{y + 12}" fill="{MUTED}">{name}</text><g transform="translate({LABEL},{y})">')
        parts.append(f'<rect width="{positions * COLUMN}" height="{LANE}" fill="#f6f8f9"/>')
        parts += [*shapes, "</g>"]
    y = len(lanes) * (LANE + GAP) + 8
    for at in range(0, positions, 25):
        parts.append(f'<text x="{LABEL + at * COLUMN}" y="{y}" fill="{MUTED}" font-size="9">{at}</text>')
    return "".join([*parts, "</svg>"])
