"""Our text path as a published checkpoint: the family's names and layout, shards with an index, config.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.errors import UserError
from omni_jax.input_pipeline.tokenizer import NUM_CONTROL
from omni_jax.model_config import ModelConfig
from omni_jax.nn.low_rank import merge_updates
from omni_jax.pretrained.families import TEXT_FAMILIES
from omni_jax.pretrained.family import Family
from omni_jax.pretrained.importing import copy_published, find_published
from omni_jax.pretrained.layout import Entry
from omni_jax.pretrained.paths import flatten
from omni_jax.pretrained.tensor_files import read_json
from omni_jax.pretrained.tensor_writer import SHARD_BYTES, Source, write_tensors
from omni_jax.types import Control

CONTROL_TOKENS = "control_tokens.json"


def export_text_model(
    cfg: ModelConfig,
    params: Mapping[str, Any],
    family: str,
    out: str | Path,
    dtype: str = "float32",
    workdir: str | Path = "",
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes the text path of `params` (an omni or a language model's) beside `out` and renames it.

    Low-rank updates are merged into their matrices.

    Args:
        family: `model_type` of the checkpoint to write; it must compute what `cfg` says.
        workdir: where the model came from. What importing kept there, or in what it was started from (tokenizer,
            licence, the other keys of config.json), goes along. Of an assembled model the control tokens come last,
            so that the published tokens keep their ids; CONTROL_TOKENS names them.

    Raises:
        UserError: an unknown family, a configuration that it does not express, `out` exists or cannot be written.
    """
    out, published = Path(out).absolute(), find_published(workdir) if workdir else None
    target = family_for(family, cfg)
    params = merge_updates(params)
    if out.exists():
        raise UserError(f"{out}: exists already: remove it or give another --out")
    partial_out = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if published is not None:
            partial_out.parent.mkdir(parents=True, exist_ok=True)
            copy_published(published, partial_out)
        else:
            partial_out.mkdir(parents=True)
        if _is_assembled(cfg, partial_out / "config.json"):
            params = _control_tokens_last(params)
            first = cfg.vocab_size - NUM_CONTROL
            ids = {f"<{token.name.lower()}>": first + token for token in Control}
            (partial_out / CONTROL_TOKENS).write_text(json.dumps(ids, indent=2) + "\n")
        sources = tensor_sources(target, cfg, params, jnp.dtype(dtype))
        write_tensors(partial_out, sources, shard_bytes)
        _write_config(partial_out / "config.json", target.write_config(cfg), dtype)
        partial_out.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}): give another --out") from None
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)
    return out


def _is_assembled(cfg: ModelConfig, published: Path) -> bool:
    """Whether the control tokens stand before a published vocabulary."""
    return published.is_file() and read_json(published).get("vocab_size") == cfg.vocab_size - NUM_CONTROL


def _control_tokens_last(params: Mapping[str, Any]) -> dict[str, Any]:
    """The control tokens behind the published vocabulary, whose ids are then those of its tokenizer again."""
    axes = {"text_embedding": 0, "text_head": 1, "text_head_bias": 0}
    moved = {name: jnp.roll(params[name], -NUM_CONTROL, axis) for name, axis in axes.items() if name in params}
    return dict(params) | moved


def tensor_sources(family: Family, cfg: ModelConfig, params: Mapping[str, Any], dtype: np.dtype) -> dict[str, Source]:
    """Every published tensor, computed when it is written."""
    arrays = flatten(params)
    sources = {}
    for line in family.entries(cfg):
        parts = [jax.ShapeDtypeStruct(arrays[slot.path].shape[len(slot.index) :], dtype) for slot in line.ours]
        shape = jax.eval_shape(line.layout.to_theirs, parts).shape
        sources[f"{family.prefix}{line.theirs}"] = Source(shape, dtype, partial(_published, line, arrays, dtype))
    return sources


def _published(line: Entry, arrays: Mapping[str, Any], dtype: np.dtype) -> np.ndarray:
    parts = [np.asarray(arrays[slot.path][slot.index] if slot.index else arrays[slot.path]) for slot in line.ours]
    return np.asarray(line.layout.to_theirs(parts)).astype(dtype)


def family_for(name: str, cfg: ModelConfig) -> Family:
    """The family, if it computes what `cfg` says: reading back the config.json that it writes must give `cfg` again."""
    if name not in TEXT_FAMILIES:
        raise UserError(f"--family={name}: want one of {', '.join(TEXT_FAMILIES)}")
    family = TEXT_FAMILIES[name]
    ours = _computed(cfg)
    theirs = _computed(family.read_config(family.write_config(cfg)))
    differing = sorted(key for key in ours if ours[key] != theirs[key])
    if differing:
        raise UserError(f"--family={name}: cannot express this model's {', '.join(differing)}: choose another family")
    return family


def _computed(cfg: ModelConfig) -> dict[str, Any]:
    """What decides the text path's result; how it is run, and widths of layers that do not exist, are left out."""
    trunk = cfg.transformer
    values = {key: value for key, value in vars(trunk).items() if key not in ("remat", "scan_layers", "moe_dispatch")}
    if not trunk.num_experts or trunk.num_dense_layers == 0:
        values.pop("mlp_dim" if trunk.num_experts else "expert_dim")
    if not trunk.num_experts:
        values = {key: value for key, value in values.items() if key not in ("num_dense_layers", "experts_per_token")}
    if trunk.variant.learned_positions:
        values = {key: value for key, value in values.items() if not key.startswith("rope_")}
    else:  # height and width turn with time in text, whatever pairs they own
        values["rope_sections"] = sum(trunk.rope_sections)
    return values | {"vocab_size": cfg.vocab_size, "tie_text_head": cfg.tie_text_head}


def _write_config(path: Path, values: dict[str, Any], dtype: str) -> None:
    known = read_json(path) if path.is_file() else {}
    path.write_text(json.dumps(known | values | {"torch_dtype": dtype}, indent=2) + "\n")
