"""A plain folder: `metadata.jsonl` with one object an example, and the audio and pictures that it names.

    {"file_name": "audio/0001.flac", "text": "what is said"}
    {"picture": "pictures/dog.png", "text": "a dog", "label": "dog"}
    {"audio": "audio/ask.wav", "text": "how are you", "reply": "very well", "reply_audio": "audio/well.wav"}
    {"audio": "audio/stop.wav", "text": "stop please", "kind": "stop"}
    {"turns": [{"role": "user", "text": "hello"}, {"role": "assistant", "text": "good morning"}]}

Without `metadata.jsonl`, every recording and picture is an example, with NAME.txt beside NAME.wav as its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Record
from omni_jax.input_pipeline.readers.record_fields import field_names, record_of
from omni_jax.input_pipeline.records import DataError

AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
METADATA = "metadata.jsonl"
TEXT_FILE = "txt"  # the text lies in the file of this name
MAX_FILE_BYTES = 1 << 30  # an hour of recording is 115 MB
MAX_LINE_BYTES = 4 << 20


class FolderReader:
    """The lines of `metadata.jsonl`, or the media files of the folder with the text files beside them."""

    def __init__(self, path: str, rename: Mapping[str, str]):
        self._folder = Path(path)
        self._rename = dict(rename)
        self.lost = ()
        if not self._folder.is_dir():
            raise DataError(f"{path} is not a folder: check data.sources")
        metadata = self._folder / METADATA
        self._lines = metadata.read_bytes().splitlines() if metadata.is_file() else self._media_files()
        self._numbers = [number for number, line in enumerate(self._lines, start=1) if line.strip()]
        if not self._numbers:
            raise DataError(f"{path}: no {METADATA}, and no audio or picture")

    def __len__(self) -> int:
        return len(self._numbers)

    def kinds(self) -> dict[frozenset[str], Sequence[int]]:
        kinds: dict[frozenset[str], list[int]] = {}
        for index in range(len(self)):
            try:
                names = field_names(sorted(self._fields(index)), self._rename)
            except BadRecord:  # found again, and counted, when it is read
                names = frozenset()
            kinds.setdefault(names, []).append(index)
        return kinds

    def __getitem__(self, index: int) -> Record:
        return record_of(self.key(index), self._loaded(self._fields(index)), self._rename)

    def key(self, index: int) -> str:
        return f"{METADATA}:{self._numbers[index]}"

    def _fields(self, index: int) -> dict[str, Any]:
        """The object of a line; `file_name` is sorted into audio or picture."""
        line = self._lines[self._numbers[index] - 1]
        if len(line) > MAX_LINE_BYTES:
            raise BadRecord(Cause.TOO_LARGE, f"a line of {len(line)} bytes, at most {MAX_LINE_BYTES} are read")
        try:
            fields = json.loads(line)
        except UnicodeDecodeError:
            raise BadRecord(Cause.NOT_UTF8, "the line is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise BadRecord(Cause.UNREADABLE, f"the line is not JSON ({error})") from None
        if not isinstance(fields, dict):
            raise BadRecord(Cause.SCHEMA, f"the line is {type(fields).__name__}, want an object")
        name = fields.pop("file_name", None)
        if isinstance(name, str):
            fields["picture" if name.lower().endswith(PICTURE_ENDINGS) else "audio"] = name
        return fields

    def _loaded(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Paths of audio and pictures replaced by what is in the files, also inside turns."""
        loaded = dict(fields)
        for name, value in fields.items():
            media = name == TEXT_FILE or field_names([name], self._rename) & {"audio", "picture", "reply_audio"}
            if media and isinstance(value, str):
                loaded[name] = self._file(value)
            elif name == "turns" and isinstance(value, list):
                loaded[name] = [self._loaded(turn) if isinstance(turn, dict) else turn for turn in value]
        return loaded

    def _file(self, name: str) -> bytes:
        root = self._folder.resolve()
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise BadRecord(Cause.SCHEMA, f"{name!r} lies outside the folder")
            if path.exists() and not path.is_file():  # a pipe would never end
                raise BadRecord(Cause.MISSING, f"{name!r} is no file")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BadRecord(Cause.TOO_LARGE, f"{name} has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES}")
            return path.read_bytes()
        except BadRecord:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise BadRecord(Cause.MISSING, f"{name!r} cannot be read ({error})") from None

    def _media_files(self) -> list[bytes]:
        """As lines of `metadata.jsonl`."""
        lines = []
        for path in sorted(self._folder.rglob("*")):
            if path.suffix.lower() in AUDIO_ENDINGS + PICTURE_ENDINGS:
                beside = path.with_suffix(".txt")
                line = {"file_name": str(path.relative_to(self._folder))}
                if beside.is_file():
                    line[TEXT_FILE] = str(beside.relative_to(self._folder))
                lines.append(json.dumps(line).encode())
        return lines
