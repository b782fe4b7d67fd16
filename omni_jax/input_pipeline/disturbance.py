"""What can happen while the assistant speaks: one thing that must stop it, and four that must not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from omni_jax.input_pipeline import augment
from omni_jax.input_pipeline.cast import Cast, stop_word_end_ms
from omni_jax.input_pipeline.corpus import SpeechClip
from omni_jax.input_pipeline.materials import Materials
from omni_jax.input_pipeline.noise import background
from omni_jax.input_pipeline.scene import FRAME_MS, Scene
from omni_jax.input_pipeline.utterance import SAMPLES_PER_MS, utterance
from omni_jax.types import FRAME_LISTEN_SAMPLES, Event, TurnState

# Not every answer is long enough for what is drawn: 3,000 dialogues of the sample corpus have 539 interruptions, 447
# murmurs (short, so it takes many to learn what they are), 167 times side talk, 102 echoes and 78 noises in answers.
DISTURBANCES = {"interruption": 0.45, "backchannel": 0.27, "side_talk": 0.16, "noise": 0.06, "echo": 0.06}
REACTION_FRAMES = (1, 3)  # from the frame that makes the interrupting word identifiable to INTERRUPT
FIRST_DISTURBANCE_MS = 240  # after the assistant's first word has started
LAST_DISTURBANCE_MS = 160  # what comes between ends before the assistant does
NOISE_MS = (200, 1000)
NOISE_DBFS = (-34.0, -22.0)
BACKCHANNEL_DB = (-8.0, 0.0)
SIDE_TALK_DB = (-12.0, -2.0)


@dataclass(frozen=True)
class Answer:
    """A reply on the frame grid. `stop` is the frame of the clip, one of its faded variants, in which it breaks off."""

    clip: SpeechClip
    clip_frame: int  # where the clip's first sample lies; may be before the first word
    first_frame: int  # of the first word
    end_frame: int  # first frame after the last word
    stop: int | None = None


def draw_disturbance(rng: np.random.Generator) -> str:
    return str(rng.choice(list(DISTURBANCES), p=list(DISTURBANCES.values())))


def disturb(
    kind: str, materials: Materials, cast: Cast, scene: Scene, answer: Answer, rng: np.random.Generator
) -> tuple[Answer, int]:
    """Puts it on the stage where it fits; returns the answer, maybe broken off, and when all is over in ms."""
    over_ms = answer.end_frame * FRAME_MS
    if kind == "interruption":
        return _interrupt(materials, cast, scene, answer, rng)
    if kind == "noise":
        _noise(scene, answer, rng)
    elif kind == "echo":
        wav = augment.echo(rng, augment.at_level(answer.clip.wav(), augment.SPEECH_LEVEL_DBFS))
        scene.add_echo(wav, max(answer.clip_frame, 0) * FRAME_LISTEN_SAMPLES)
    else:
        _talk_between(kind, materials, cast, scene, answer, rng)
    return answer, over_ms


def _interrupt(
    materials: Materials, cast: Cast, scene: Scene, answer: Answer, rng: np.random.Generator
) -> tuple[Answer, int]:
    stops = list(materials.speech_codes.fades.get(answer.clip.id, ()))
    over_ms = answer.end_frame * FRAME_MS
    if not (stops and cast.stops):
        return answer, over_ms
    clip = cast.stops[rng.integers(len(cast.stops))]
    spoken = utterance(clip, rng if materials.augmented else None)
    identified_ms = stop_word_end_ms(spoken.words, spoken.duration_ms)
    reaction = int(rng.integers(REACTION_FRAMES[0], REACTION_FRAMES[1] + 1))
    within_frame_ms = rng.uniform(0, FRAME_MS)
    for stop in rng.permutation(stops):
        identified_frame = answer.clip_frame + int(stop) - reaction
        start_ms = int(identified_frame * FRAME_MS + within_frame_ms - identified_ms)
        end_ms = start_ms + spoken.duration_ms
        if start_ms >= (answer.first_frame + 1) * FRAME_MS and end_ms < scene.room_ms():
            scene.hear(spoken, start_ms, TurnState.INTERRUPT)
            scene.event[identified_frame] = Event.INTERRUPT
            stop_ms = (answer.clip_frame + int(stop)) * FRAME_MS
            return replace(answer, stop=int(stop)), int(max(end_ms, stop_ms))
    return answer, over_ms


def _talk_between(
    kind: str, materials: Materials, cast: Cast, scene: Scene, answer: Answer, rng: np.random.Generator
) -> None:
    backchannel = kind == "backchannel"
    clips = cast.backchannels if backchannel else cast.side_talks
    if not clips:
        return
    spoken = utterance(clips[rng.integers(len(clips))], rng if materials.augmented else None)
    start_ms = _start_between(answer, spoken.duration_ms, rng)
    if start_ms is None:
        return
    gain = 10.0 ** (rng.uniform(*(BACKCHANNEL_DB if backchannel else SIDE_TALK_DB)) / 20.0)
    scene.hear(spoken, start_ms, TurnState.BACKCHANNEL if backchannel else TurnState.SIDE_TALK, gain)
    scene.event[start_ms // FRAME_MS] = Event.BACKCHANNEL if backchannel else Event.SIDE_TALK


def _noise(scene: Scene, answer: Answer, rng: np.random.Generator) -> None:
    duration_ms = round(rng.uniform(*NOISE_MS))
    start_ms = _start_between(answer, duration_ms, rng)
    if start_ms is None:
        return
    burst = background(rng, duration_ms * SAMPLES_PER_MS, [])
    burst *= np.hanning(len(burst)) ** 0.25 * 10.0 ** (rng.uniform(*NOISE_DBFS) / 20.0)
    start = start_ms * SAMPLES_PER_MS
    scene.user[start : start + len(burst)] += burst.astype(np.float32)
    scene.event[start_ms // FRAME_MS] = Event.NOISE
    scene.decision[start_ms // FRAME_MS : (start_ms + duration_ms) // FRAME_MS + 1] = True


def _start_between(answer: Answer, duration_ms: float, rng: np.random.Generator) -> int | None:
    """A time at which something of this length lies inside the answer; None where it is too long."""
    first = answer.first_frame * FRAME_MS + FIRST_DISTURBANCE_MS
    last = answer.end_frame * FRAME_MS - LAST_DISTURBANCE_MS - duration_ms
    return int(rng.uniform(first, last)) if last > first else None
