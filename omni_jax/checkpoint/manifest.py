"""What a checkpoint records besides arrays: enough to go on with exactly the same run, and to refuse any other."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omni_jax.config import Config, from_dict, to_dict
from omni_jax.errors import UserError

LAYOUT_VERSION = 1  # raised when the items, the parameter paths or the manifest's keys change

# A run may go on with another value of these: they change neither the parameters nor what a step computes.
RESUMABLE_KEYS = (
    "training.steps",
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.tensorboard",
    "training.init_from",
    "training.codec_from",  # the codec itself is compared by its sha256
    "data.corpus",
    "data.tokenizer",
    "data.workers",
    "data.prefetch",
    "mesh.",
)


class CheckpointError(UserError):
    """A checkpoint that is missing, belongs to something else, or cannot be written."""


@dataclass(frozen=True)
class Manifest:
    """The JSON item of a checkpoint. `data_state` is the loader's own (JSON values or bytes)."""

    step: int
    config: Config
    key_data: tuple[int, ...]  # jax.random.key_data of the run's root key
    data_state: Any = None
    codec_sha256: str = ""
    layout_version: int = LAYOUT_VERSION

    def to_json(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        state = self.data_state
        values["data_state"] = {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else state
        return values | {"config": to_dict(self.config), "key_data": list(self.key_data)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """Raises CheckpointError for a layout that this version does not read."""
        version = values.get("layout_version")
        if version != LAYOUT_VERSION:
            raise CheckpointError(
                f"checkpoint layout {version}, this version reads {LAYOUT_VERSION}: train again or use the version "
                "that wrote it"
            )
        state = values["data_state"]
        if isinstance(state, dict) and set(state) == {"base64"}:
            state = base64.b64decode(state["base64"])
        config = from_dict(Config, values["config"])
        rest = {"config": config, "key_data": tuple(values["key_data"]), "data_state": state}
        return cls(**{**values, **rest})


def config_differences(saved: Config, current: Config) -> list[str]:
    """Keys that differ and matter for going on with a run, as 'key: saved -> current'."""
    theirs, ours = dict(_flatten(to_dict(saved))), dict(_flatten(to_dict(current)))
    return [
        f"{key}: {theirs.get(key)!r} -> {ours.get(key)!r}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key) and not key.startswith(RESUMABLE_KEYS)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
