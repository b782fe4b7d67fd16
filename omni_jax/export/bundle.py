"""Loads a trained model with all that it needs to run, from a run's workdir or an export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omni_jax.checkpoint import CheckpointError, load_codec, load_manifest, load_params, require_local
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.export.archive import Bundle, read_archive
from omni_jax.export.data_card import data_card
from omni_jax.export.manifest import MANIFEST
from omni_jax.input_pipeline.tokenizer import read_tokenizer
from omni_jax.nn.low_rank import merge_updates

FINAL_STAGE = "duplex"
CODEC = "codec"


def load_bundle(path: str | Path) -> Bundle:
    """Loads an exported directory, a quickstart's workdir (`duplex/` and `codec/` in it) or one stage's workdir.

    Low-rank updates are merged into their matrices. Raises UserError when something is missing, damaged or trained
    with another codec.
    """
    require_local(path)
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such directory: train first (make quickstart) or check --workdir")
    if (path / MANIFEST).exists():
        return read_archive(path)
    stage = path / FINAL_STAGE if (path / FINAL_STAGE).is_dir() else path
    if not (stage / "checkpoints").is_dir():
        raise UserError(
            f"{path}: neither an export nor a trained workdir (no {FINAL_STAGE}/, no checkpoints/, no {MANIFEST}): "
            "train first (make quickstart) or check --workdir"
        )
    manifest = load_manifest(stage)
    config, params = load_params(stage)
    params = merge_updates(params)
    codec_config, codec_params = load_codec_of(path, stage, config, manifest.codec_sha256)
    config = dataclasses.replace(config, codec=codec_config.codec, model=dataclasses.replace(config.model, lora=""))
    return Bundle(config, params, codec_params, _read_tokenizer(config), manifest.step, data_card(config))


def load_codec_of(path: Path, stage: Path, config: Config, codec_sha256: str) -> tuple[Config, Any]:
    """The codec of the model in the workdir `stage`: in `path`, beside the stage, or where its training took it from.

    Raises UserError where the model has none, CheckpointError where none of these is the one that it was trained with.
    """
    if config.stage == "codec":
        raise UserError(f"{path}: holds a codec alone, which cannot answer: give the workdir of a later stage")
    if not codec_sha256:
        raise UserError(
            f"{path}: stage {config.stage} was trained without a codec, it cannot speak: train stage duplex"
        )
    places = [path / CODEC, stage.parent / CODEC]
    if config.training.codec_from:
        places.append(Path(config.training.codec_from))
    refused = CheckpointError(f"{path}: its codec {codec_sha256[:12]} is not there: copy it to {places[0]}")
    for place in dict.fromkeys(places):
        if place.is_dir():
            try:
                return load_codec(place, codec_sha256)
            except CheckpointError as error:
                refused = error
    raise refused


def _read_tokenizer(config: Config) -> bytes:
    try:
        return read_tokenizer(config.data.tokenizer)
    except UserError as error:
        raise UserError(
            f"{config.data.tokenizer}: the model's tokenizer is missing: run from the directory that it was trained in"
        ) from error
