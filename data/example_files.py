"""Writes examples in the project's own schema: tf.Example records in ArrayRecord files, which `array_record:` reads.

Fields, all optional: text (one or more alternatives), audio and picture (encoded files), reply, label, role, words with
word_start_ms and word_end_ms, codes (frame by frame) with num_codebooks, fade_frames with fade_codes, turns (JSON),
kind; and of a reply that is spoken, the same names after "reply_".
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float

from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Record, Samples
from omni_jax.input_pipeline.readers.record_fields import REPLY
from omni_jax.input_pipeline.records import MAX_RECORD_BYTES, Example

OPTIONS = "group_size:1"  # a record is read alone


def serialise(fields: Mapping[str, Any]) -> bytes:
    """A tf.Example of text, bytes, whole numbers and lists of them; fields that are empty are left out.

    Raises BadRecord for one that would be too large to be read again.
    """
    example = Example()
    for name, value in fields.items():
        values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
        if not values or values == [""] or values == [None]:
            continue
        feature = example.features.feature[name]
        if isinstance(values[0], str | bytes):
            feature.bytes_list.value.extend(item.encode() if isinstance(item, str) else item for item in values)
        else:
            feature.int64_list.value.extend(int(item) for item in values)
    record = example.SerializeToString(deterministic=True)
    if len(record) > MAX_RECORD_BYTES:
        raise BadRecord(Cause.TOO_LARGE, f"its record has {len(record)} bytes, at most {MAX_RECORD_BYTES} are read")
    return record


def record_fields(record: Record) -> dict[str, Any]:
    """The fields of a record as it was read."""
    fields = {"text": record.texts, "picture": record.picture, "kind": record.kind}
    fields |= {"reply": record.reply, "label": record.label, "role": record.role} | _sound_fields(record)
    if record.spoken_reply is not None:
        fields |= {REPLY + name: value for name, value in _sound_fields(record.spoken_reply).items()}
    if record.turns:
        turns = [{"role": turn.role, "text": turn.texts[0] if turn.texts else ""} for turn in record.turns]
        fields["turns"] = json.dumps(turns)
    return fields


def _sound_fields(record: Record) -> dict[str, Any]:
    audio = record.audio
    if isinstance(audio, Samples):
        audio = flac(audio.values.astype(np.float32) / 32768.0, audio.sample_rate_hz)
    fields = {"audio": audio, "words": [word.text for word in record.words]}
    fields |= {f"word_{edge}_ms": [getattr(word, f"{edge}_ms") for word in record.words] for edge in ("start", "end")}
    if record.codes is not None:
        fields |= {"codes": record.codes.ravel(), "num_codebooks": record.codes.shape[1]}
    if record.fades:
        fields |= {"fade_frames": list(record.fades), "fade_codes": np.stack(list(record.fades.values())).ravel()}
    return fields


def flac(wav: Float[np.ndarray, "N"], rate_hz: int) -> bytes:
    """16-bit FLAC."""
    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(wav, -1.0, 1.0), rate_hz, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def shard_path(directory: Path, split: str, shard: int, count: int) -> Path:
    return directory / f"{directory.name}-{split}.array_record-{shard:05d}-of-{count:05d}"


def write_shard(path: Path, records: Iterable[bytes]) -> int:
    """Writes a shard, whole or not at all; returns how many records it has."""
    temporary = path.with_name(f"{path.name}.tmp")
    writer, count = ArrayRecordWriter(str(temporary), OPTIONS), 0
    for record in records:
        writer.write(record)
        count += 1
    writer.close()
    temporary.replace(path)
    return count
