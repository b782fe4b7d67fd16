"""The stages, in order, and what each needs: one table that the trainer and the quickstart read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from omni_jax.checkpoint import CheckpointError, load_manifest, local_folder, place, write_whole
from omni_jax.config import Config
from omni_jax.config_dict import to_dict
from omni_jax.errors import ConfigError
from omni_jax.operations import Operations
from omni_jax.parallel.multihost import is_first
from omni_jax.training.codec_stage import train_codec
from omni_jax.training.omni_stage import train_omni


class Stage(NamedTuple):
    train: Callable[[Config, str | Path, Operations], None]
    needs_codec: bool  # training.codec_from must name a trained codec
    follows: str  # the stage that training.init_from names; "" starts from random parameters


STAGES = {
    "codec": Stage(train_codec, needs_codec=False, follows=""),
    "pretrain": Stage(train_omni, needs_codec=False, follows=""),
    "perceive": Stage(train_omni, needs_codec=False, follows="pretrain"),
    "align": Stage(train_omni, needs_codec=True, follows="perceive"),
    "duplex": Stage(train_omni, needs_codec=True, follows="align"),
}


def run_stage(config: Config, workdir: str | Path, operations: Operations | None = None) -> None:
    """Trains `config.stage` in `workdir`, or goes on with it. Raises UserError for what the user can mend."""
    stage = STAGES[config.stage]
    if stage.needs_codec and not config.training.codec_from:
        raise ConfigError(
            f"stage {config.stage} needs speech codes: give --config.training.codec_from=<workdir of a trained codec>"
        )
    address = place(workdir)
    with _writable(workdir):
        local_folder(workdir).mkdir(parents=True, exist_ok=True)
    stage.train(config, workdir, operations or Operations())
    if is_first():
        with _writable(workdir):
            write_whole(address / "config.json", json.dumps(to_dict(config), indent=2) + "\n")


@contextlib.contextmanager
def _writable(workdir: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: {error.strerror}: give a directory that can be written") from error


def is_complete(config: Config, workdir: str | Path) -> bool:
    """Whether `workdir` holds a finished run of `config.stage`."""
    if not (Path(workdir) / "checkpoints").is_dir():
        return False
    try:
        manifest = load_manifest(workdir)
    except CheckpointError:  # ended before its first checkpoint: the stage starts anew
        return False
    return manifest.step >= config.training.steps and manifest.config.stage == config.stage
