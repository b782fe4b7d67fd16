"""WebDataset tars: the files of one example stand behind each other and share the name up to the first dot.

https://github.com/webdataset/webdataset; read by position from an index, so that examples can be drawn in any order.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from omni_jax.input_pipeline.readers.record import BadRecord, Cause
from omni_jax.input_pipeline.readers.shard_index import Entry, IndexedReader

MAX_MEMBER_BYTES = 64 << 20
BLOCK_BYTES, END_BYTES = 512, 1024


class TarReader(IndexedReader):
    """The examples of some tars. `.json` gives fields, `.txt` and `.cls` text, other endings are fields themselves."""

    def __init__(self, shards: Sequence[str], rename: Mapping[str, str]):
        super().__init__(shards, rename, scan_tar)

    def field_names(self, shard: str, entry: Entry) -> set[str]:
        try:
            inside = _json_fields(read_part(shard, *entry["files"]["json"])).keys()
        except (BadRecord, KeyError):
            inside = ()
        return {*entry["files"], *inside}

    def read_fields(self, shard: str, entry: Entry) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for ending, (start, size) in entry["files"].items():
            content = read_part(shard, start, size)
            fields |= _json_fields(content) if ending == "json" else {ending: content}
        return fields


def scan_tar(path: str) -> tuple[list[Entry], str]:
    """An entry an example: its key, and the start and size of each of its files. Raises BadRecord for no tar at all."""
    entries: list[Entry] = []
    size, end = os.stat(path).st_size, 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
                if end > size:
                    return entries, f"cut off inside {member.name}"
                if member.isfile():
                    _add(entries, member)
    except tarfile.TarError as error:
        if not entries:
            raise BadRecord(Cause.UNREADABLE, f"{path}: not an uncompressed tar ({error})") from None
        return entries, f"damaged after {entries[-1]['key']}: {error}"
    return entries, _what_follows(path, end, size)


def _add(entries: list[Entry], member: tarfile.TarInfo) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, _, ending = name.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    if not entries or entries[-1]["key"] != key or ending.lower() in entries[-1]["files"]:
        entries.append({"key": key, "files": {}})
    entries[-1]["files"][ending.lower()] = [member.offset_data, member.size]


def _what_follows(path: str, end: int, size: int) -> str:
    """Why what comes after the last file is not the end of a tar; tarfile takes a damaged header for an end."""
    if size < end + END_BYTES:
        return "cut off: the empty blocks at its end are missing"
    if size % BLOCK_BYTES:
        return f"damaged: its {size} bytes are no whole blocks of {BLOCK_BYTES}"
    with open(path, "rb") as file:
        file.seek(end)
        while part := file.read(1 << 20):
            if part.strip(b"\0"):
                return f"damaged behind byte {end}: a header cannot be read"
    return ""


def read_part(path: str, start: int, size: int) -> bytes:
    if size > MAX_MEMBER_BYTES:
        raise BadRecord(Cause.TOO_LARGE, f"a file of {size} bytes, at most {MAX_MEMBER_BYTES} are read")
    try:
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read(size)
    except OSError as error:
        raise BadRecord(Cause.MISSING_SHARD, f"{path}: {error}") from None
    if len(content) < size:
        raise BadRecord(Cause.TRUNCATED, f"{path} ends after {len(content)} of {size} bytes of the file")
    return content


def _json_fields(content: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    except UnicodeDecodeError:
        raise BadRecord(Cause.NOT_UTF8, "its .json is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadRecord(Cause.UNREADABLE, f"its .json cannot be read ({error})") from None
    if not isinstance(fields, dict):
        raise BadRecord(Cause.SCHEMA, f"its .json is {type(fields).__name__}, want an object")
    return fields
