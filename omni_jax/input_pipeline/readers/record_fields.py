"""Records from the plain fields of any format (`text`, `speech`, `image`, `captions/text`, ...).

Fields are found by their names, so that a corpus is used as it was published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Record, Samples

MAX_TEXT_CHARACTERS = 1 << 20
MAX_TURNS = 1000
# What a field may be called, best first. A source's own names go into its address: parquet:PATH?text=normalised
NAMES = {
    "text": (
        *("text", "transcript", "transcription", "sentence", "raw_text", "captions/text", "captions", "caption"),
        *("question", "instruction", "prompt", "txt"),
    ),
    "audio": ("audio", "speech", "recording", "flac", "wav", "ogg", "opus", "mp3"),
    "picture": ("picture", "image", "png", "jpg", "jpeg", "webp"),
    "reply": ("reply", "answer", "answers", "response", "completion", "multiple_choice_answer"),
    "label": ("label", "class"),
    "role": ("role",),
    "words": ("words",),
    "codes": ("codes",),
    "turns": ("turns", "messages", "conversations"),
    "kind": ("kind",),
    "reply_audio": ("reply_audio", "answer_audio", "response_audio"),
    "reply_words": ("reply_words",),
    "reply_codes": ("reply_codes",),
}
REPLY = "reply_"  # a reply's own fields have the names of a record's, after this
ALIASES = {alias: name for name, aliases in NAMES.items() for alias in aliases}
RANKS = {alias: rank for aliases in NAMES.values() for rank, alias in enumerate(aliases)}
ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's


def field_names(names: Sequence[str], rename: Mapping[str, str]) -> frozenset[str]:
    """What a record with fields of these names has."""
    renamed = {ours for ours, theirs in rename.items() if theirs in names}
    return frozenset(renamed | {ALIASES[name] for name in names if name in ALIASES and ALIASES[name] not in rename})


def record_of(key: str, fields: Mapping[str, Any], rename: Mapping[str, str]) -> Record:
    """The record that `fields` describe. `rename`: our name -> theirs, where it is not one of NAMES.

    Raises:
      BadRecord: a value of another type than its name promises, text that is no UTF-8, nothing that can be used.
    """

    found = _by_meaning(fields, rename)
    texts = tuple(text for text in (_text(name, key) for name in _listed(found.get("text"))) if text)
    reply, label, role, kind = (_first_text(found.get(name), key) for name in ("reply", "label", "role", "kind"))
    record = Record(
        key=key,
        texts=texts,
        audio=_media(found.get("audio"), "audio"),
        picture=_media(found.get("picture"), "picture"),
        reply=reply,
        label=label,
        role=ROLES.get(role, role),
        words=_words(found.get("words"), fields),
        codes=_codes(found.get("codes"), fields),
        turns=_turns(key, found.get("turns"), rename),
        kind=kind,
        fades=_fades(fields),
        spoken_reply=_spoken_reply(key, found, fields),
    )
    if not (texts or record.audio is not None or record.picture is not None or record.turns):
        raise BadRecord(Cause.SCHEMA, f"none of text, audio, picture or turns in its fields {sorted(fields)[:12]}")
    return record


def _by_meaning(fields: Mapping[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    """Our name -> value, of the best alias that has one."""
    names: dict[str, str] = {}
    for name, value in fields.items():
        ours = ALIASES.get(name)
        if ours is not None and value is not None and (ours not in names or RANKS[name] < RANKS[names[ours]]):
            names[ours] = name
    return {ours: fields.get(theirs) for ours, theirs in (names | rename).items()}


def _listed(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _first_text(value: Any, key: str) -> str:
    return "" if value is None else next((_text(item, key) for item in _listed(value)), "")


def _text(value: Any, key: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRecord(Cause.NOT_UTF8, f"its text is not UTF-8 ({error.reason} at byte {error.start})") from None
    if isinstance(value, bool | int | float | np.integer | np.floating):
        value = str(value)
    if not isinstance(value, str):
        raise BadRecord(Cause.SCHEMA, f"its text is {type(value).__name__}, want a string")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise BadRecord(
            Cause.TOO_LARGE, f"its text has {len(value)} characters, at most {MAX_TEXT_CHARACTERS} are read"
        )
    return value.strip()


def _media(value: Any, name: str) -> Any:
    """Encoded bytes, also out of Hugging Face's struct of bytes and path, or samples."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("bytes")
        if value is None:
            raise BadRecord(Cause.MISSING, f"its {name} is a path without bytes: embed the files when you save the set")
    if value is None or isinstance(value, bytes | Samples):
        return value
    raise BadRecord(Cause.SCHEMA, f"its {name} is {type(value).__name__}, want the bytes of a file")


def _words(value: Any, fields: Mapping[str, Any]) -> tuple[Span, ...]:
    """From [[word, start_ms, end_ms], ...], or from three lists: words, word_start_ms, word_end_ms."""
    if value is None or (isinstance(value, list | tuple) and not value):
        return ()
    starts, ends = fields.get("word_start_ms"), fields.get("word_end_ms")
    try:
        rows = value if starts is None else zip(value, starts, ends, strict=True)
        spans = tuple(Span(_text(word, ""), round(float(start)), round(float(end))) for word, start, end in rows)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(Cause.SCHEMA, f"its words are not [word, start in ms, end in ms] ({error})") from None
    edges = [0, *(ms for span in spans for ms in (span.start_ms, span.end_ms))]
    if edges != sorted(edges):
        raise BadRecord(Cause.SCHEMA, "the times of its words are not in order")
    return spans


def _codes(value: Any, fields: Mapping[str, Any]) -> Int[np.ndarray, "F Q"] | None:
    """From rows of codebooks, or from one flat list and `num_codebooks`."""
    if value is None:
        return None
    try:
        codes = np.asarray(value, np.int32)
        width = fields.get("num_codebooks", 0)
        codes = codes.reshape(-1, int(width[0] if isinstance(width, list) else width)) if codes.ndim == 1 else codes
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        raise BadRecord(Cause.SCHEMA, f"its codes are not frames of codebooks ({error})") from None
    if codes.ndim != 2 or not codes.size or codes.min() < 0:
        raise BadRecord(Cause.SCHEMA, f"its codes have shape {codes.shape}: want frames x codebooks, none below 0")
    return codes


def _fades(fields: Mapping[str, Any]) -> dict[int, Int[np.ndarray, "F Q"]]:
    """From frames in which speech may break off, `fade_frames`, and the codes from each on, all in one flat list."""
    frames = fields.get("fade_frames")
    if not frames:
        return {}
    try:
        width = fields["num_codebooks"]
        width = int(width[0] if isinstance(width, list) else width)
        tails = np.asarray(fields["fade_codes"], np.int32).reshape(len(frames), -1, width)
        stops = [int(frame) for frame in frames]
    except (TypeError, ValueError, OverflowError, IndexError, KeyError) as error:
        raise BadRecord(Cause.SCHEMA, f"its fade_codes are not frames of codebooks ({error})") from None
    if not tails.size or tails.min() < 0 or min(stops) < 0:
        raise BadRecord(Cause.SCHEMA, f"its fade_codes have shape {tails.shape}: want frames x codebooks, none below 0")
    return dict(zip(stops, tails, strict=True))


def _spoken_reply(key: str, found: Mapping[str, Any], fields: Mapping[str, Any]) -> Record | None:
    """The reply's audio, words and codes, in fields of a record's names after REPLY."""
    if not any(found.get(REPLY + name) is not None for name in ("audio", "words", "codes")):
        return None
    own = {name.removeprefix(REPLY): value for name, value in fields.items() if name.startswith(REPLY)}
    reply = _first_text(found.get("reply"), key)
    return Record(
        key=f"{key}#reply",
        texts=(reply,) if reply else (),
        audio=_media(found.get("reply_audio"), "reply"),
        role="assistant",
        words=_words(found.get("reply_words"), own),
        codes=_codes(found.get("reply_codes"), own),
        fades=_fades(own),
    )


def _turns(key: str, value: Any, rename: Mapping[str, str]) -> tuple[Record, ...]:
    """From [{role, text}, ...], maybe as JSON; `from`, `value` and `content` are taken for role and text."""
    if value is None:
        return ()
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], bytes):
        try:
            value = json.loads(value[0])
        except (ValueError, RecursionError) as error:
            raise BadRecord(Cause.UNREADABLE, f"its turns are not JSON ({error})") from None
    if not isinstance(value, list | tuple | np.ndarray) or len(value) > MAX_TURNS:
        raise BadRecord(Cause.SCHEMA, f"its turns are not a list of at most {MAX_TURNS}")
    turns = []
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping) or "turns" in turn:
            raise BadRecord(Cause.SCHEMA, f"turn {number} is not an object with role and text")
        fields = dict(turn)
        for theirs, ours in (("from", "role"), ("value", "text"), ("content", "text")):
            if theirs in fields:
                fields.setdefault(ours, fields.pop(theirs))
        turns.append(record_of(f"{key}#{number}", fields, rename))
    return tuple(turns)
