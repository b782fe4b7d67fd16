"""What a checkpoint records besides arrays: enough to go on with exactly the same run, and to refuse any other."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_jax.config import Config
from omni_jax.config_dict import from_dict, to_dict
from omni_jax.errors import UserError

LAYOUT_VERSION = 3  # raised when the items, the parameter paths, the manifest's keys or what is learned change
_READABLE_VERSIONS = (1, 2, 3)  # parameters are the same; of 1 the optimizer's state is not, of 2 TurnHead's targets

# A run may go on with another value of these: they change neither the parameters nor what a step computes, but for
# training.steps, which moves the end of the learning rate's decay. Other data are told by the loader's state.
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
    "data.log_mel",
    "data.workers",
    "data.prefetch",
    *(f"model.transformer.{key}" for key in ("scan_layers", "remat", "moe_dispatch")),  # the same parameters and loss
    "mesh.",
)

_STRUCTURAL_KEYS = (
    *("stage", "model.", "codec.", "codec_training.discriminator_dim", "training.trainable"),
    *(f"recipe.{group}." for group in ("seanet", "dac", "hifigan", "vocos", "discriminator", "weights")),
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
        if version not in _READABLE_VERSIONS:
            raise CheckpointError(
                f"checkpoint layout {version}, this version reads up to {LAYOUT_VERSION}: train again or use the "
                "version that wrote it"
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


def require_same_run(
    workdir: Path, manifest: Manifest, config: Config, codec_sha256: str, allow_config_change: bool
) -> None:
    """Raises CheckpointError where a checkpoint belongs to another run; an allowed change of config is only said."""
    if manifest.layout_version != LAYOUT_VERSION:
        raise CheckpointError(
            f"{workdir} holds a run of layout {manifest.layout_version}, which this version evaluates and starts from "
            "(training.init_from) but cannot go on with: give another --workdir"
        )
    differences = config_differences(manifest.config, config)
    shown = f"{'; '.join(differences[:4])}{' ...' if len(differences) > 4 else ''}"
    structural = [difference for difference in differences if difference.startswith(_STRUCTURAL_KEYS)]
    if structural:
        raise CheckpointError(f"{workdir} holds a run of another model ({shown}): give another --workdir")
    if differences and not allow_config_change:
        raise CheckpointError(
            f"{workdir} holds a run of another config ({shown}): give another --workdir, the same flags, or "
            "--allow_config_change to go on from its last checkpoint with the new values"
        )
    before, now = manifest.config.training.steps, config.training.steps
    if before != now:
        print(f"{workdir}: training.steps {before} -> {now}: the learning rate decays to there from here", flush=True)
    if differences:
        print(f"{workdir}: going on with a changed config: {'; '.join(differences)}", flush=True)
    if manifest.codec_sha256 != codec_sha256:
        raise CheckpointError(
            f"{workdir} was trained on the codes of codec {manifest.codec_sha256[:12] or 'none'}, "
            f"not of {codec_sha256[:12] or 'none'}: set training.codec_from to that codec or start a new --workdir"
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
