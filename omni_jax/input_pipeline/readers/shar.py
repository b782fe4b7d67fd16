"""Lhotse Shar: `cuts.NNNNNN.jsonl.gz` beside `recording.NNNNNN.tar`, cut by cut in the same order.

https://lhotse.readthedocs.io/en/latest/shar.html; as `CutSet.to_shar(..., fields={"recording": "flac"})` writes it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_jax.input_pipeline.readers.record import BadRecord, Cause
from omni_jax.input_pipeline.readers.shard_index import Entry, IndexedReader
from omni_jax.input_pipeline.readers.tar_shards import read_part, scan_tar

MAX_LINE_BYTES = 4 << 20
MAX_CUTS_BYTES = 1 << 30  # unpacked; a shard has some thousands of cuts


class SharReader(IndexedReader):
    """One cut an example: its audio, the text of its supervisions and their word alignment."""

    def __init__(self, shards: Sequence[str], rename: Mapping[str, str]):
        super().__init__(shards, rename, scan_shar)

    def field_names(self, shard: str, entry: Entry) -> set[str]:
        names = {name for name, value in (entry["fields"] or {}).items() if value}
        return names | ({"audio"} if entry["file"] else set())

    def read_fields(self, shard: str, entry: Entry) -> dict[str, Any]:
        if not isinstance(entry["fields"], dict):
            raise BadRecord(Cause.UNREADABLE, "the line of the cut is not JSON")
        recording = recording_of(shard)
        if not entry["file"]:
            raise BadRecord(Cause.MISSING, f"{Path(recording).name} has no audio of this cut{entry['why']}")
        return entry["fields"] | {"audio": read_part(recording, *entry["file"])}


def recording_of(cuts: str) -> str:
    """The tar with the audio of a shard of cuts."""
    path = Path(cuts)
    return str(path.with_name(path.name.replace("cuts.", "recording.", 1).removesuffix(".jsonl.gz") + ".tar"))


def scan_shar(cuts: str) -> tuple[list[Entry], str]:
    """An entry a cut. Raises BadRecord where there is not even one."""
    lines, broken = _gzip_lines(cuts)
    files, tar_broken = _audio_files(recording_of(cuts))
    entries = []
    for number, line in enumerate(lines):
        fields = _cut_fields(line)
        key = fields.pop("id") if fields else f"line {number + 1}"
        entries.append({"key": key, "fields": fields, "file": files.get(key), "why": tar_broken})
    if not entries:
        cause = Cause.CUT_SHARD if broken else Cause.EMPTY
        raise BadRecord(cause, f"{cuts}: no cut can be read ({broken or 'it is empty'})")
    return entries, broken  # what the tar lacks is counted cut by cut


def _gzip_lines(path: str) -> tuple[list[bytes], str]:
    lines: list[bytes] = []
    size = 0
    try:
        with gzip.open(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                lines.append(line)
                size += len(line)
                if size > MAX_CUTS_BYTES:
                    return lines, f"unpacks to more than {MAX_CUTS_BYTES} bytes: the rest is not read"
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        return lines, f"cut off or damaged after {len(lines)} cuts: {error}"
    return lines, ""


def _audio_files(path: str) -> tuple[dict[str, list[int]], str]:
    try:
        members, broken = scan_tar(path)
    except (OSError, BadRecord) as error:
        return {}, f" ({error})"
    ours = {}
    for member in members:
        names = [name for name in member["files"] if name.rpartition(".")[2] not in ("json", "nodata", "nometa")]
        if names:  # an id with dots goes on in what the tar takes for an ending
            stem = names[0].rpartition(".")[0]
            ours[f"{member['key']}.{stem}" if stem else member["key"]] = member["files"][names[0]]
    return ours, f" ({broken})" if broken else ""


def _cut_fields(line: bytes) -> dict[str, Any] | None:
    """id, text and word times of a cut; None where it is no cut."""
    try:
        cut = json.loads(line)
        spoken = cut.get("supervisions") or []
        words = [
            [symbol[0], 1000.0 * symbol[1], 1000.0 * (symbol[1] + symbol[2])]
            for supervision in spoken
            for symbol in (supervision.get("alignment") or {}).get("word", ())
        ]
        text = " ".join(supervision["text"] for supervision in spoken if supervision.get("text"))
        return {"id": str(cut["id"]), "text": text, "words": words} | (cut.get("custom") or {})
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return None
