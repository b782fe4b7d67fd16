"""Proof that a checkpoint is whole: sha256 of every file, written before the marker that makes the checkpoint count.

Orbax restores arrays whose bits were flipped on disk without a word. So each process hashes the files that it wrote
into `sha256.<process>.json`, and process 0 then writes `commit.json`, which holds the hashes of these lists and its
own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from etils import epath

from omni_jax.checkpoint.storage import relative_files, write_whole

COMMIT_FILE = "commit.json"
_CHUNK_BYTES = 1 << 20


class DamagedError(Exception):
    """A checkpoint that is not what was written; the message says which file and how."""


def write_hashes(directory: epath.Path, process: int, num_processes: int) -> None:
    """Hashes the files of `process`: Orbax names its shares by process, whatever else there is belongs to process 0."""
    names = [name for name in relative_files(directory) if not name.startswith(("sha256.", "commit."))]
    own = [name for name in names if _owner(PurePath(name), num_processes) == process]
    hashes = {name: [(directory / name).stat().length, _sha256(directory / name)] for name in own}
    write_whole(directory / _hashes_file(process), json.dumps(hashes, indent=0))


def write_commit(directory: epath.Path, num_processes: int, facts: Mapping[str, Any]) -> None:
    """The marker, last of all files. `facts`: what `read_commit` shall return."""
    lists = {_hashes_file(process): _sha256(directory / _hashes_file(process)) for process in range(num_processes)}
    body = {"lists": lists, "facts": dict(facts)}
    write_whole(directory / COMMIT_FILE, json.dumps(body | {"sha256": _body_sha256(body)}))


def is_committed(directory: Path | epath.Path) -> bool:
    return (directory / COMMIT_FILE).exists()


def read_commit(directory: epath.Path) -> dict[str, Any]:
    """The facts of the marker. Raises DamagedError."""
    return _read_marker(directory)["facts"]


def verify(directory: epath.Path, items: Sequence[str] = (), part: int = 0, num_parts: int = 1) -> None:
    """Compares sizes and hashes of the files of `items` (all by default); raises DamagedError at the first other one.

    Several readers may share the work: this one takes every `num_parts`-th file.
    """
    expected: dict[str, list[Any]] = {}
    for name, sha256 in _read_marker(directory)["lists"].items():
        _require_file(directory, name, None, sha256)
        expected |= json.loads((directory / name).read_text(encoding="utf-8"))
    wanted = [name for name in sorted(expected) if not items or PurePath(name).parts[0] in items]
    for name in wanted[part::num_parts]:
        _require_file(directory, name, *expected[name])


def _read_marker(directory: epath.Path) -> dict[str, Any]:
    try:
        body = json.loads((directory / COMMIT_FILE).read_bytes())
        sha256 = body.pop("sha256")
    except FileNotFoundError as error:
        raise DamagedError(f"{COMMIT_FILE} is missing: its save was cut off") from error
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise DamagedError(f"{COMMIT_FILE} cannot be read") from error
    if sha256 != _body_sha256(body):
        raise DamagedError(f"{COMMIT_FILE} is not what was written")
    return body


def _require_file(directory: epath.Path, name: str, size: int | None, sha256: str) -> None:
    path = directory / name
    try:
        found = path.stat().length
        if size is not None and found != size:
            raise DamagedError(f"{name} has {found} of {size} bytes")
        if _sha256(path) != sha256:
            raise DamagedError(f"{name} is not what was written (its sha256 differs)")
    except FileNotFoundError as error:
        raise DamagedError(f"{name} is missing") from error
    except OSError as error:
        raise DamagedError(f"{name} cannot be read: {error.strerror}") from error


def _owner(path: PurePath, num_processes: int) -> int:
    for part in path.parts:
        head, _, number = part.rpartition("process_")
        if head in ("", "ocdbt.") and number.isdecimal() and int(number) < num_processes:
            return int(number)
    return 0


def _hashes_file(process: int) -> str:
    return f"sha256.{process}.json"


def _sha256(path: epath.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):  # hashing a chunk lets other threads run
            digest.update(chunk)
    return digest.hexdigest()


def _body_sha256(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
