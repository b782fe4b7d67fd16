"""The calls of an evaluation, all from the test split: its pictures, and its voices, questions and sentences.

A call starts with 0.4 s of silence and goes on to its end in a quiet room: noise at -62 dBFS, as a microphone hears
it. Nothing else is varied: no gain, no speed, no telephone line.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from omni_jax.config import EvalConfig
from omni_jax.evals.examples import Call
from omni_jax.input_pipeline import augment, noise
from omni_jax.input_pipeline.cast import Cast, make_cast
from omni_jax.input_pipeline.corpus import SPLITS, Picture, SpeechClip, load_speech
from omni_jax.input_pipeline.materials import Materials
from omni_jax.input_pipeline.utterance import SAMPLES_PER_MS, Utterance, utterance, with_pause
from omni_jax.types import FRAME_LISTEN_SAMPLES, SPEECH_SAMPLE_RATE_HZ

LEAD_MS = 400


@dataclass(frozen=True)
class HeldOut:
    """The test split's users and pictures, and the assistant's recordings of all replies (targets, never inputs)."""

    cast: Cast
    call_frames: int

    @property
    def classes(self) -> list[str]:
        return self.cast.labels

    def clips(self, kind: str, count: int, rng: np.random.Generator) -> list[SpeechClip]:
        """`count` user clips whose reply is known, each text once before any comes again."""
        clips = self.cast.questions.get(kind, [])
        shuffled = [clips[i] for i in rng.permutation(len(clips))]
        return _rounds(shuffled, [clip.text for clip in shuffled], count)

    def call(self, kind: str, clip: SpeechClip, rng: np.random.Generator, picture: Picture | None = None) -> Call:
        """One call in which `clip` is said; `kind` "pause" puts a pause between two of its words."""
        spoken = utterance(clip, None)
        if kind == "pause":
            spoken = with_pause(spoken, rng)
        target = self.cast.reply(clip, picture.label if picture else None)
        return Call(
            kind=kind,
            user_wav=self.room(spoken, rng),
            picture=None if picture is None else picture.image.astype(np.float32) / 255.0,
            question=clip.text,
            expected=target.text,
            label=picture.label if picture else "",
            factors={"voice": clip.voice, "question": clip.text, "picture": picture.cluster if picture else ""},
            target_wav=target.wav(),
            pauses_ms=() if spoken.pause_ms is None else (tuple(LEAD_MS + ms for ms in spoken.pause_ms),),
        )

    def room(self, spoken: Utterance | None, rng: np.random.Generator) -> Float[np.ndarray, " N"]:
        """A whole call's microphone: the utterance after 0.4 s, and room noise."""
        wav = np.zeros(self.call_frames * FRAME_LISTEN_SAMPLES, np.float32)
        if spoken is not None:
            part = spoken.wav[: len(wav) - LEAD_MS * SAMPLES_PER_MS]
            wav[LEAD_MS * SAMPLES_PER_MS :][: len(part)] = part
        quiet_db = augment.SPEECH_LEVEL_DBFS - noise.QUIET_ROOM_DBFS
        return noise.add_noise(rng, wav, quiet_db, []).astype(np.float32)


def load_held_out(materials: Materials, call_frames: int) -> HeldOut:
    """`materials`: of the test split. Raises DataError where the corpus is not there."""
    clips = [clip for split in SPLITS for clip in load_speech(materials.source, split, SPEECH_SAMPLE_RATE_HZ)]
    assistant = [clip for clip in clips if clip.role == "assistant"]
    return HeldOut(make_cast(materials, assistant), call_frames)


def picture_calls(held: HeldOut, config: EvalConfig) -> list[Call]:
    """Pictures in turn from every class, another drawing (cluster) each time as long as there are some."""
    rng = np.random.default_rng([config.seed, 1])
    by_class = [_rounds(p, [x.cluster for x in p], len(p)) for p in map(held.cast.pictures.get, held.classes)]
    pictures = [p for row in itertools.zip_longest(*by_class) for p in row if p is not None][: config.pictures]
    clips = held.clips("picture_question", len(pictures), rng)
    return [held.call("picture", clip, rng, picture) for clip, picture in zip(clips, pictures)]


def asked_calls(held: HeldOut, kind: str, clip_kind: str, count: int, seed: int) -> list[Call]:
    """`count` calls of one kind without a picture."""
    rng = np.random.default_rng([seed, *kind.encode()])
    return [held.call(kind, clip, rng) for clip in held.clips(clip_kind, count, rng)]


def pause_calls(held: HeldOut, config: EvalConfig) -> list[Call]:
    """Questions with a pause of 0.4 to 1.5 s between two words."""
    rng = np.random.default_rng([config.seed, 2])
    kinds = ("fact_question", "repeat_request", "tell")
    clips = [clip for kind in kinds for clip in held.clips(kind, config.pauses, rng) if len(clip.words) > 1]
    chosen = [clips[i] for i in rng.permutation(len(clips))[: config.pauses]]
    return [held.call("pause", clip, rng) for clip in chosen]


def silent_calls(held: HeldOut, config: EvalConfig) -> list[Call]:
    """A batch of calls in which nobody speaks."""
    rng = np.random.default_rng([config.seed, 3])
    factors = {"voice": "", "question": "", "picture": ""}
    return [Call("silence", held.room(None, rng), None, "", "", "", factors) for _ in range(config.rows)]


def _rounds(items: Sequence, keys: Sequence[object], count: int) -> list:
    """Up to `count` items, repeating all if there are fewer; every key once before any comes a second time."""
    seen: dict[object, int] = {}
    order = []
    for index, key in enumerate(keys):
        seen[key] = seen.get(key, 0) + 1
        order.append((seen[key], index))
    ranked = [items[index] for _, index in sorted(order)]
    return list(itertools.islice(itertools.cycle(ranked), count)) if ranked else []
