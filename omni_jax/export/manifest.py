"""What an export holds and where it comes from; with the sha256 of every file, so that a damaged copy is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from omni_jax.errors import UserError

MANIFEST = "manifest.json"
EXPORT_VERSION = 2  # raised when a file's name or content changes its meaning
_MAX_BYTES = 64 << 20  # of a manifest


def write_manifest(directory: Path, facts: Mapping[str, Any]) -> None:
    """Records `facts`, and every file that lies in `directory` or below."""
    files = {path.relative_to(directory).as_posix(): _entry(path) for path in sorted(directory.rglob("*"))}
    files = {name: entry for name, entry in files.items() if entry}
    manifest = {"export_version": EXPORT_VERSION, **facts, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def verify_manifest(directory: Path) -> dict[str, Any]:
    """Reads the manifest and checks every file against it. Raises UserError naming the first file that differs."""
    manifest = _read(directory / MANIFEST)
    version = manifest["export_version"]
    if version != EXPORT_VERSION:
        raise UserError(f"{directory}: export version {version}, this version reads {EXPORT_VERSION}: export again")
    for name, expected in manifest["files"].items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{directory / MANIFEST}: {name!r} lies outside of the export: export again")
        if not (directory / name).is_file():
            raise UserError(f"{directory / name}: missing: copy the whole directory or export again")
        if _entry(directory / name) != expected:
            raise UserError(f"{directory / name}: differs from its manifest (damaged copy): copy it or export again")
    return manifest


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, want at most {_MAX_BYTES}")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["export_version"], manifest["files"].items()  # both are there, and the files are a table
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not readable ({error}): export again") from None
    return manifest


def _entry(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
