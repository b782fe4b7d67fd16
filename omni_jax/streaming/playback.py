"""Plays a WAV through whichever player the machine has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from omni_jax.errors import UserError

_PLAYERS = (
    ("paplay",),
    ("pw-play",),
    ("aplay", "--quiet"),
    ("afplay",),
    ("ffplay", "-autoexit", "-nodisp", "-loglevel", "error"),
)


def find_player() -> tuple[str, ...]:
    """The command of the first player found. Raises UserError naming the remedy."""
    for command in _PLAYERS:
        if shutil.which(command[0]):
            return command
    names = ", ".join(command[0] for command in _PLAYERS)
    raise UserError(f"--play: no audio player found (looked for {names}): install one or leave --play out")


def play(path: str | Path, player: tuple[str, ...]) -> None:
    """Plays the file and waits. Raises UserError when the player fails, as it does without a sound device."""
    done = subprocess.run([*player, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[:200] or f"exit code {done.returncode}"
        raise UserError(f"--play: {player[0]} failed ({reason}): the speech is in {path}, play it elsewhere")
