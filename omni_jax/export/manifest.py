"""The list of an export's files with their sha256, so that a damaged or mixed-up copy is noticed when it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_jax.errors import UserError

MANIFEST = "manifest.json"
EXPORT_VERSION = 1  # raised when a file's name or content changes its meaning


def write_manifest(directory: Path, facts: Mapping[str, Any]) -> None:
    """Records every file that lies in `directory`, and `facts`."""
    files = {path.name: _entry(path) for path in sorted(directory.iterdir())}
    manifest = {"export_version": EXPORT_VERSION, **facts, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def verify_manifest(directory: Path) -> dict[str, Any]:
    """Reads the manifest and checks every file against it. Raises UserError naming the first file that differs."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        version, files = manifest["export_version"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / MANIFEST}: not readable ({error}): export again") from None
    if version != EXPORT_VERSION:
        raise UserError(f"{directory}: export version {version}, this version reads {EXPORT_VERSION}: export again")
    for name, expected in files.items():
        if not (directory / name).is_file():
            raise UserError(f"{directory / name}: missing: copy the whole directory or export again")
        if _entry(directory / name) != expected:
            raise UserError(f"{directory / name}: differs from its manifest (damaged copy): copy it or export again")
    return manifest


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
