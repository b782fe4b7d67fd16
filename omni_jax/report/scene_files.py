"""Reads the scenes that an evaluation has written, and embeds their recordings."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from omni_jax.evals.levels import audible, first_audible_ms, last_audible_ms
from omni_jax.evals.scenes import stereo
from omni_jax.report.style import data_uri
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ


class SceneFiles(NamedTuple):
    facts: dict[str, Any]  # scene.json
    user_wav: Float[np.ndarray, " N"]  # 16 kHz
    own_wav: Float[np.ndarray, " N"]  # 24 kHz, on the same clock
    target_wav: Float[np.ndarray, " N"] | None  # 24 kHz, on its own clock
    picture_uri: str | None

    @property
    def dialogue_uri(self) -> str:
        user = soxr.resample(self.user_wav, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ)
        return audio_uri(stereo(user, self.own_wav))

    @property
    def own_speech(self) -> Float[np.ndarray, " N"]:
        """`own_wav` from its first to its last sound."""
        windows = audible(self.own_wav, SPEECH_SAMPLE_RATE_HZ)
        first, last = first_audible_ms(windows), last_audible_ms(windows)
        if first is None or last is None:
            return self.own_wav
        return self.own_wav[round(first) * SPEECH_SAMPLE_RATE_HZ // 1000 : round(last) * SPEECH_SAMPLE_RATE_HZ // 1000]

    @property
    def target_uri(self) -> str | None:
        return None if self.target_wav is None else audio_uri(self.target_wav)


def read_scenes(directory: Path) -> list[SceneFiles]:
    """All scenes below `directory`, by name; empty where no evaluation has written any."""
    return [_read_scene(path.parent) for path in sorted(directory.glob("*/scene.json"))]


def audio_uri(wav: np.ndarray) -> str:
    """24 kHz audio as MP3, which every browser plays; a tenth of a WAV."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, SPEECH_SAMPLE_RATE_HZ, format="MP3")
    return data_uri(buffer.getvalue(), "audio/mpeg")


def _read_scene(directory: Path) -> SceneFiles:
    picture, target = directory / "picture.png", directory / "target.wav"
    return SceneFiles(
        facts=json.loads((directory / "scene.json").read_text(encoding="utf-8")),
        user_wav=_read_wav(directory / "user.wav"),
        own_wav=_read_wav(directory / "own.wav"),
        target_wav=_read_wav(target) if target.exists() else None,
        picture_uri=data_uri(picture.read_bytes(), "image/png") if picture.exists() else None,
    )


def _read_wav(path: Path) -> Float[np.ndarray, " N"]:
    return soundfile.read(path, dtype="float32")[0]
