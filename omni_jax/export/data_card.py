"""What a model was trained on, and under which terms: read from the corpus' own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omni_jax.config import Config

_LICENCES = "LICENSES.md"
_MAX_BYTES = 1 << 20  # of a text file that goes into the card


def data_card(config: Config) -> dict[str, Any]:
    """The data sets of `config.data.corpus` with their splits, and the text of its LICENSES.md; or `data.sources`.

    What cannot be read any more is left out, and `missing` says so: the export is made where the corpus may not lie.
    """
    if config.data.sources:
        licences = "of data.sources: not known here"
        return {"sources": dict(config.data.sources), "tasks": dict(config.data.tasks), "licences": licences}
    corpus = Path(config.data.corpus)
    card: dict[str, Any] = {"corpus": corpus.name, "tasks": dict(config.data.tasks)}
    if not corpus.is_dir():
        return card | {"missing": f"{corpus.name} is not here any more: its sources and licences are unknown"}
    infos = (_read_json(path) for path in sorted(corpus.rglob("dataset_info.json")))
    return card | {
        "sources": [_source(info) for info in infos if info],
        "licences": _read(corpus / _LICENCES) or f"the corpus has no {_LICENCES}",
    }


def _source(info: dict[str, Any]) -> dict[str, Any]:
    splits = {split["name"]: sum(map(int, split["shardLengths"])) for split in info.get("splits", ())}
    return {
        "name": "/".join(filter(None, (info.get("name"), info.get("configName")))),
        "version": info.get("version"),
        "description": info.get("configDescription") or info.get("description"),
        "urls": info.get("location", {}).get("urls", []),
        "examples": splits,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")
