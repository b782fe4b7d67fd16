"""The dialogue simulator: questions, answers, pauses, interruptions, and what must not interrupt.

A dialogue is a pure function of its random generator. The user asks; the assistant's first voiced frame comes a fixed
number of frames after the user's last voiced one, so that *when* to answer can be learned; while it speaks, the user
may interrupt, and more often something happens that is no interruption (backchannel, noise, side talk, the assistant's
own echo). Recipes: arXiv:2410.00037 section 4.2, arXiv:2408.02622.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.cast import Cast, make_cast
from omni_jax.input_pipeline.corpus import Picture, SpeechClip
from omni_jax.input_pipeline.disturbance import SIDE_TALK_DB, Answer, disturb, draw_disturbance
from omni_jax.input_pipeline.materials import Materials, TaskSource
from omni_jax.input_pipeline.monologue import text_weights, without_words
from omni_jax.input_pipeline.noise import add_background
from omni_jax.input_pipeline.phones import phone_track
from omni_jax.input_pipeline.scene import FRAME_MS, GAP_FRAMES, Scene
from omni_jax.input_pipeline.speech_tasks import end_frame, placed_words
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.text_tasks import picture_patches, with_tag
from omni_jax.input_pipeline.timeline import Example, Frames, Layout, delay_codes, delay_states
from omni_jax.input_pipeline.utterance import Utterance, utterance, with_pause
from omni_jax.input_pipeline.words import word_track
from omni_jax.types import PHONES_PER_SLOT, Control, Event, TurnState

MAX_FRAMES = 150
LEAD_MS = (200, 1000)
BETWEEN_TURNS_MS = (500, 1200)
TAIL_MS = (300, 1000)
LONG_TAIL_MS = (1000, 6000)  # who has never heard a long silence after an answer starts to speak in it
LONG_TAIL_SHARE = 0.5
KIND_SHARES = {"picture_question": 0.28, "fact_question": 0.31, "repeat_request": 0.16, "greeting": 0.05, "tell": 0.2}
PAUSE_SHARE = 0.3
SECOND_TURN_SHARE = 0.35
SIDE_TALK_SHARE = 0.15  # said after the answer to somebody else, and not answered
UNASKED_PICTURE_SHARE = 0.2  # a picture is there, but the question is about something else
DISTURBED_SHARES = ((30, 0.9), (18, 0.8), (0, 0.05))  # of replies with at least so many frames
ATTEMPTS = 20
NUM_DIALOGUES = 1 << 16  # keys only see to it that every question has its turn


@dataclass(frozen=True)
class Turn:
    """What is asked and answered."""

    question: SpeechClip
    reply: SpeechClip


def dialogue_source(materials: Materials) -> TaskSource:
    """Dialogues over all questions of the split. Raises UserError without speech codes."""
    cast = make_cast(materials)

    def build(key: int, rng: np.random.Generator) -> Example:
        return dialogue_example(materials, cast, key, rng)

    return TaskSource(NUM_DIALOGUES, build)


def dialogue_example(materials: Materials, cast: Cast, key: int, rng: np.random.Generator) -> Example:
    """Maybe a picture, DIALOGUE, then the frames of one or two turns."""
    picture, scene = play(materials, cast, key, rng)
    return heard_scene(materials, scene, picture, talkers(cast, rng) if materials.augmented else [], rng)


def heard_scene(
    materials: Materials,
    scene: Scene,
    picture: Picture | None,
    talking: list[Float[np.ndarray, "N"]],
    rng: np.random.Generator,
) -> Example:
    """A scene as the microphone hears it; `talking` are voices for babble noise."""
    wav = scene.user + scene.echo
    if materials.augmented:
        wav = add_background(rng, wav, talking)
    mel = materials.log_mel(wav, materials.draw_variation(wav, rng, masked=False))
    patches = picture_patches(materials, picture, rng) if picture else None
    return with_tag(materials, lay_out(materials, scene, mel, patches), picture)


def lay_out(materials: Materials, scene: Scene, mel: Float[np.ndarray, "F8 M"], patches=None) -> Example:
    """The timeline of a scene with the log-mel of what the microphone hears of it."""
    model = materials.config.model
    text = scene.text if model.inner_monologue else without_words(scene.text)
    frames = Frames(
        text=text,
        text_weight=text_weights(text, scene.decision),
        codes=delay_codes(scene.codes, model.acoustic_delay),
        codes_weight=scene.codes_weight,
        user_vad=scene.user_vad,
        turn_state=delay_states(scene.turn_state),
        event=scene.event,
    )
    layout = Layout(Task.DIALOGUE, model.num_codebooks)
    if patches is not None:
        layout.picture(*patches)
    layout.text([Control.DIALOGUE]).frames(frames, mel)
    phones = phone_track(scene.phones, scene.num_frames * PHONES_PER_SLOT, 0.0, materials.phone_ids)
    example = layout.finish(features.labels(" ".join(scene.transcript)), phones)
    return replace(example, words=word_track(scene.words, scene.num_frames, 0.0, materials.tokenizer))


def talkers(cast: Cast, rng: np.random.Generator) -> list[Float[np.ndarray, "N"]]:
    """Three voices for babble noise."""
    kinds = list(cast.questions.values())
    chosen = [kinds[rng.integers(len(kinds))] for _ in range(3)]
    return [clips[rng.integers(len(clips))].wav() for clips in chosen]


def max_frames(materials: Materials) -> int:
    """Frames that fit a row beside the prefix, and its pool."""
    data = materials.config.data
    return min(MAX_FRAMES, data.row_positions - prefix_positions(materials), data.audio_slots * data.rows_per_pool)


def prefix_positions(materials: Materials) -> int:
    """IMAGE, a picture and DIALOGUE."""
    return 2 + materials.config.model.vision.num_patches // 4


def play(materials: Materials, cast: Cast, key: int, rng: np.random.Generator) -> tuple[Picture | None, Scene]:
    """One dialogue. What does not fit the row is drawn again, without pause in the last attempts."""
    for attempt in range(ATTEMPTS):
        kind = _draw_kind(cast, rng)
        picture = _draw_picture(cast, rng, kind)
        turn = draw_turn(cast, kind, key + attempt, picture)
        scene = Scene(max_frames(materials), materials.speech_codes.silence)
        end_ms = play_turn(materials, cast, scene, turn, round(rng.uniform(*LEAD_MS)), rng, attempt < ATTEMPTS // 2)
        if end_ms is None:
            continue
        end_scene(materials, cast, scene, end_ms, rng, picture)
        return picture, scene
    raise ValueError(f"no dialogue fits {max_frames(materials)} frames: raise data.row_positions and data.audio_slots")


def end_scene(
    materials: Materials,
    cast: Cast,
    scene: Scene,
    end_ms: int,
    rng: np.random.Generator,
    picture: Picture | None = None,
) -> None:
    """Maybe a second turn, or side talk, after what ends at `end_ms`; then silence, and the scene is cut."""
    then = rng.random()
    if then < SECOND_TURN_SHARE and cast.questions:
        end_ms = _second_turn(materials, cast, scene, picture, end_ms, rng)
    elif SECOND_TURN_SHARE <= then < SECOND_TURN_SHARE + SIDE_TALK_SHARE and cast.side_talks:
        end_ms = _side_talk(materials, cast, scene, end_ms, rng)
    tail_ms = LONG_TAIL_MS if rng.random() < LONG_TAIL_SHARE else TAIL_MS
    scene.cut(int((end_ms + rng.uniform(*tail_ms)) // FRAME_MS) + 1)


def play_turn(
    materials: Materials, cast: Cast, scene: Scene, turn: Turn, start_ms: int, rng: np.random.Generator, pauses: bool
) -> int | None:
    """Puts question, answer and disturbance on the stage; returns when it is over, or None where there is no room."""
    spoken = utterance(turn.question, rng if materials.augmented else None)
    if pauses and len(spoken.words) > 1 and rng.random() < PAUSE_SHARE:
        spoken = with_pause(spoken, rng)
    answer = place_answer(spoken, start_ms, turn.reply)
    if answer.end_frame + 1 > scene.num_frames:
        return None
    last_voiced = scene.hear(spoken, start_ms, TurnState.TURN)
    scene.event[last_voiced] = Event.END_OF_USER_TURN
    scene.decision[last_voiced + 1 : last_voiced + GAP_FRAMES] = True
    length = answer.end_frame - answer.first_frame
    if rng.random() < next(share for frames, share in DISTURBED_SHARES if length >= frames):
        answer, over_ms = disturb(draw_disturbance(rng), materials, cast, scene, answer, rng)
    else:
        over_ms = answer.end_frame * FRAME_MS
    say_answer(materials, scene, answer)
    return over_ms


def place_answer(spoken: Utterance, start_ms: int, reply: SpeechClip) -> Answer:
    """The reply so that its first word starts GAP_FRAMES after the user's last voiced frame."""
    last_voiced = int((start_ms + spoken.duration_ms - 1e-3) // FRAME_MS)
    first_frame = last_voiced + 1 + GAP_FRAMES
    clip_frame = first_frame - int(reply.words[0].start_ms // FRAME_MS)
    return Answer(reply, clip_frame, first_frame, clip_frame + end_frame(reply.words))


def say_answer(materials: Materials, scene: Scene, answer: Answer) -> None:
    codes, clip_id = materials.speech_codes, answer.clip.id
    own = codes.clips[clip_id] if answer.stop is None else codes.faded(clip_id, answer.stop)
    words = placed_words(answer.clip.words, materials.tokenizer, answer.clip_frame)
    stop_frame = None if answer.stop is None else answer.clip_frame + answer.stop
    if stop_frame is not None:
        words = [word for word in words if word.start_frame < stop_frame]
    scene.say(own, words, answer.clip_frame, answer.end_frame, stop_frame)


def draw_turn(cast: Cast, kind: str, key: int, picture: Picture | None) -> Turn:
    clips = cast.questions[kind]
    question = clips[key % len(clips)]
    return Turn(question, cast.reply(question, picture.label if picture else None))


def _draw_kind(cast: Cast, rng: np.random.Generator, with_picture: bool = True) -> str:
    kinds = [kind for kind in cast.questions if with_picture or kind != "picture_question"]
    shares = np.array([KIND_SHARES[kind] for kind in kinds])
    return kinds[rng.choice(len(kinds), p=shares / shares.sum())]


def _draw_picture(cast: Cast, rng: np.random.Generator, kind: str) -> Picture | None:
    if not cast.labels or (kind != "picture_question" and rng.random() > UNASKED_PICTURE_SHARE):
        return None
    label = cast.labels[rng.integers(len(cast.labels))]
    return cast.pictures[label][rng.integers(len(cast.pictures[label]))]


def _second_turn(
    materials: Materials, cast: Cast, scene: Scene, picture: Picture | None, end_ms: int, rng: np.random.Generator
) -> int:
    """Another question, where it fits; otherwise the dialogue ends as it was."""
    kind = _draw_kind(cast, rng, with_picture=picture is not None)
    turn = draw_turn(cast, kind, int(rng.integers(1 << 30)), picture)
    start_ms = end_ms + round(rng.uniform(*BETWEEN_TURNS_MS))
    over_ms = play_turn(materials, cast, scene, turn, start_ms, rng, pauses=True)
    return end_ms if over_ms is None else over_ms


def _side_talk(materials: Materials, cast: Cast, scene: Scene, end_ms: int, rng: np.random.Generator) -> int:
    """The user says something that is not meant for the assistant, where it fits."""
    clip = cast.side_talks[rng.integers(len(cast.side_talks))]
    spoken = utterance(clip, rng if materials.augmented else None)
    start_ms = end_ms + round(rng.uniform(*BETWEEN_TURNS_MS))
    if start_ms + spoken.duration_ms + TAIL_MS[0] > scene.room_ms():
        return end_ms
    scene.hear(spoken, start_ms, TurnState.SIDE_TALK, 10.0 ** (rng.uniform(*SIDE_TALK_DB) / 20.0))
    scene.event[start_ms // FRAME_MS] = Event.SIDE_TALK
    return int(start_ms + spoken.duration_ms)
