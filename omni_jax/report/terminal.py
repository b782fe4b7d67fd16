"""Pictures and dialogues as coloured text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from rich.style import Style
from rich.text import Text

from omni_jax.report.strip import CONTROL_COLOURS, WORD_COLOUR
from omni_jax.report.style import STATE_COLOURS
from omni_jax.streaming.session import FrameResult
from omni_jax.types import TURN_DELAY_FRAMES, TurnState

PICTURE_COLUMNS = 32
STATE_SIGNS = dict(zip(TurnState, "·▂:~!?", strict=True))  # told apart without colours, too
CONTROL_SIGNS = {"LISTEN": "·", "WAIT": "▂", "EPAD": "▂", "SPEAK": "▲", "INTERRUPT": "✕", "END_OF_TURN": "▼"}
WORD_SIGN = "█"


def picture_blocks(picture: Float[np.ndarray, "H W 3"]) -> Text:
    """Half a character a pixel, 32 pixels wide; `picture` is RGB in [0, 1]."""
    height, width = picture.shape[:2]
    rows = 2 * round(PICTURE_COLUMNS * height / width / 2)
    small = Image.fromarray(np.uint8(np.round(255 * picture))).resize((PICTURE_COLUMNS, rows))
    pixels, text = np.asarray(small), Text()
    for upper, lower in zip(pixels[::2], pixels[1::2]):
        for above, below in zip(upper, lower):
            text.append("▀", Style(color=_rgb(above), bgcolor=_rgb(below)))
        text.append("\n")
    text.rstrip()
    return text


def state_strip(results: Sequence[FrameResult]) -> Text:
    """One sign for each 80 ms: what the model takes the user to do, and below it what the model does."""
    text = Text("user   ")
    for result in results[TURN_DELAY_FRAMES:]:  # each state at its own frame
        text.append(STATE_SIGNS[result.turn_state], Style(bgcolor=STATE_COLOURS[result.turn_state], color="#22303c"))
    text.append("\nmodel  ")
    for result in results:
        sign = CONTROL_SIGNS.get(result.control, WORD_SIGN)
        colour = CONTROL_COLOURS.get(result.control, WORD_COLOUR)
        text.append(sign, Style(bgcolor=CONTROL_COLOURS["LISTEN"], color="#22303c" if sign == "·" else colour))
    return text


def legend() -> str:
    """What the signs of a strip mean."""
    users = "  ".join(f"{sign} {state.name.lower()}" for state, sign in STATE_SIGNS.items())
    models = {"·": "listens", "▲": "takes the turn", WORD_SIGN: "a word", "▂": "is still saying it"}
    models |= {"▼": "ends its turn", "✕": "is interrupted"}
    return f"80 ms a sign; user: {users}\nmodel: " + "  ".join(f"{sign} {what}" for sign, what in models.items())


def _rgb(pixel: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in pixel))
