"""Calls kept for people to hear and see: recordings, the picture, and what happened in every frame.

<evaluation>/scenes/<name>/scene.json user.wav own.wav [target.wav] [picture.png]
samples/<name>.wav            both sides, user left, model right
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float
from PIL import Image

from omni_jax.evals.examples import FRAME_MS, Call, Reply
from omni_jax.evals.levels import audible, last_audible_ms
from omni_jax.streaming.transcript import PieceVocabulary, control_name
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

NEAR, FAR = 0.9, 0.25  # gains of a voice in its own and in the other channel
TAIL_MS = 800  # kept after the last sound


class Scene(NamedTuple):
    name: str
    call: Call
    reply: Reply
    event_ms: float | None = None  # when a second sound of the user starts
    correct: bool | None = None


def write_scene(directory: Path, scene: Scene, vocabulary: PieceVocabulary) -> None:
    """Writes `directory`/scene.json and its recordings; both sides are cut 0.8 s after the last sound."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = _frames_to_keep(scene)
    user = _cut(scene.call.user_wav, frames, LISTEN_SAMPLE_RATE_HZ)
    own = _cut(scene.reply.heard_wav, frames, SPEECH_SAMPLE_RATE_HZ)
    soundfile.write(directory / "user.wav", user, LISTEN_SAMPLE_RATE_HZ)
    soundfile.write(directory / "own.wav", own, SPEECH_SAMPLE_RATE_HZ)
    if scene.call.target_wav is not None:
        soundfile.write(directory / "target.wav", scene.call.target_wav, SPEECH_SAMPLE_RATE_HZ)
    if scene.call.picture is not None:
        Image.fromarray(np.uint8(np.round(255 * scene.call.picture))).save(directory / "picture.png")
    described = describe(scene, frames, vocabulary)
    (directory / "scene.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def describe(scene: Scene, frames: int, vocabulary: PieceVocabulary) -> dict[str, Any]:
    """The scene without its recordings: one text piece, control token and state distribution a frame."""
    ids = [int(token) for token in scene.reply.text_ids[:frames]]
    controls = [control_name(token) for token in ids]
    pieces = ["" if control else vocabulary.id_to_piece(token) for token, control in zip(ids, controls)]
    return {
        "name": scene.name,
        "kind": scene.call.kind,
        "question": scene.call.question,
        "second_text": scene.call.second_text,
        "expected": scene.call.expected,
        "reply": scene.reply.text,
        "label": scene.call.label,
        "correct": scene.correct,
        "event_ms": scene.event_ms,
        "pieces": pieces,
        "controls": controls,
        "turn": np.round(scene.reply.turn[:frames].astype(float), 3).tolist(),
    }


def write_sample(path: Path, scene: Scene) -> None:
    """Both sides as they were heard, user on the left and model on the right."""
    frames = _frames_to_keep(scene)
    user = soxr.resample(scene.call.user_wav, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ)
    path.parent.mkdir(parents=True, exist_ok=True)
    mixed = stereo(
        _cut(user, frames, SPEECH_SAMPLE_RATE_HZ), _cut(scene.reply.heard_wav, frames, SPEECH_SAMPLE_RATE_HZ)
    )
    soundfile.write(path, mixed, SPEECH_SAMPLE_RATE_HZ)


def stereo(left: Float[np.ndarray, " N"], right: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 2"]:
    """Two voices of one sample rate, each mostly in its own channel, so that both ears hear both."""
    length = max(len(left), len(right))
    left, right = (np.pad(wav, (0, length - len(wav))) for wav in (left, right))
    mixed = np.stack([NEAR * left + FAR * right, FAR * left + NEAR * right], axis=1)
    return mixed / max(1.0, float(np.abs(mixed).max(initial=0.0)))


def _frames_to_keep(scene: Scene) -> int:
    user, own = scene.call.user_wav, scene.reply.heard_wav
    ends = [_last_sound_ms(user, LISTEN_SAMPLE_RATE_HZ), _last_sound_ms(own, SPEECH_SAMPLE_RATE_HZ)]
    return min(int(np.ceil((max(ends) + TAIL_MS) / FRAME_MS)), len(scene.reply.text_ids))


def _last_sound_ms(wav: Float[np.ndarray, " N"], rate_hz: int) -> float:
    return last_audible_ms(audible(wav, rate_hz)) or 0.0


def _cut(wav: Float[np.ndarray, " N"], frames: int, rate_hz: int) -> Float[np.ndarray, " M"]:
    samples = round(frames * FRAME_MS * rate_hz / 1000)
    return np.pad(wav[:samples], (0, max(0, samples - len(wav))))
