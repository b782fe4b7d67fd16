"""Full-duplex dialogues from own sources: a record is a question that is heard and the reply that is spoken to it.

The reply's codes, its ways to break off and its word times are in the record (`data.encode_codes`, `data.align_words`).
What comes between is said by records with a `kind`: stop, backchannel, side_talk. Without them nobody is interrupted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from omni_jax.input_pipeline.cast import Cast
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.corpus import SpeechClip
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.dialogue import LEAD_MS, Turn, end_scene, heard_scene, play_turn, prefix_positions
from omni_jax.input_pipeline.materials import Materials
from omni_jax.input_pipeline.own_media import clip_of, codes_of, maybe_picture_of
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Record
from omni_jax.input_pipeline.scene import Scene
from omni_jax.input_pipeline.speech_tasks import end_frame
from omni_jax.input_pipeline.timeline import Example
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ

NEEDS = (("audio", "reply", "reply_codes", "reply_words"),)
KINDS = ("stop", "backchannel", "side_talk")
MOST_CLIPS = 2_000  # that come between; they stay in memory


def own_dialogue_example(materials: Materials, cast: Cast, record: Record, rng: np.random.Generator) -> Example:
    """Maybe a picture, DIALOGUE, then the frames of a turn. `cast` has what can come between. Raises BadRecord."""
    reply = record.spoken_reply
    codes = _codes_of_reply(materials, reply)
    scene = Scene(_most_frames(materials), codes.silence)
    text = record.texts[0] if record.texts else ""
    turn = Turn(clip_of(materials, record, text, rng, whole=True), _reply_clip(reply))
    start_ms = round(rng.uniform(*LEAD_MS))
    over_ms = play_turn(replace(materials, codes=codes), cast, scene, turn, start_ms, rng, pauses=True)
    if over_ms is None:
        raise BadRecord(
            Cause.TOO_LONG, f"it does not fit {scene.num_frames} frames: raise data.row_positions and data.audio_slots"
        )
    end_scene(materials, cast, scene, over_ms, rng)
    return heard_scene(materials, scene, maybe_picture_of(materials, record), [], rng)


def _codes_of_reply(materials: Materials, reply: Record | None) -> CodeCache:
    """Of one clip; it breaks off only before its last word is over."""
    if reply is None or not reply.words:
        raise BadRecord(Cause.SCHEMA, "its reply has no times of words")
    codes, end = codes_of(materials, reply), end_frame(reply.words)
    if end > len(codes):
        raise BadRecord(Cause.SCHEMA, f"its reply's words end in frame {end}, its codes in {len(codes)}")
    fades = {frame: tail for frame, tail in reply.fades.items() if frame < end}
    return CodeCache("", materials.speech_codes.silence, {reply.key: codes}, {reply.key: fades})


def _reply_clip(reply: Record) -> SpeechClip:
    """The reply with its sound, of which only the echo is heard; silence where the record has codes alone."""
    if reply.audio is None:
        samples = np.zeros(reply.words[-1].end_ms * LISTEN_SAMPLE_RATE_HZ // 1000 + 1, np.int16)
    else:
        wav = decode_audio(reply.audio, LISTEN_SAMPLE_RATE_HZ)
        samples = np.clip(np.round(wav * 32767.0), -32768, 32767).astype(np.int16)
    return SpeechClip(
        id=reply.key, role="assistant", kind="reply", voice="", text=reply.texts[0] if reply.texts else "", reply="",
        template="", slot="", words=reply.words, phones=(), samples=samples, sample_rate_hz=LISTEN_SAMPLE_RATE_HZ,
    )  # fmt: skip


def _most_frames(materials: Materials) -> int:
    data = materials.config.data
    return min(data.row_positions - prefix_positions(materials), data.audio_slots * data.rows_per_pool)


def cast_between(materials: Materials) -> Cast:
    """Who has no turn and speaks all the same: every record of a `kind`. A bad one is set aside as anywhere."""
    own = materials.own
    keys = own.keys((frozenset({"audio", "kind"}),), frozenset(), materials.split)
    clips: dict[str, list[SpeechClip]] = {kind: [] for kind in KINDS}
    for key in range(min(len(keys), MOST_CLIPS)):
        source, index = keys[key]
        try:
            record = own.read(source, index)
            if record.kind not in KINDS:
                raise BadRecord(Cause.SCHEMA, f"its kind is {record.kind!r}: want one of {', '.join(KINDS)}")
            text = record.texts[0] if record.texts else ""
            clip = clip_of(materials, record, text, np.random.default_rng(0), whole=True)
        except BadRecord as error:
            own.reject(source, index, error)
            continue
        own.use(source)
        clips[record.kind].append(clip)
    return Cast({}, {}, {}, {}, **{f"{kind}s": found for kind, found in clips.items()})
