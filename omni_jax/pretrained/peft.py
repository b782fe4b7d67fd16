"""Low-rank updates of the text path in the files of the PEFT library, both ways."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from omni_jax.errors import UserError
from omni_jax.model_config import ModelConfig
from omni_jax.nn.low_rank import A, B, M, column_norms
from omni_jax.pretrained.family import Family, HubConfig, require
from omni_jax.pretrained.layout import Entry
from omni_jax.pretrained.paths import flatten, unflatten
from omni_jax.pretrained.peft_layout import UNTRANSPOSED, input_axes, module_name, to_ours, to_theirs
from omni_jax.pretrained.tensor_files import Tensor, read_header, read_json
from omni_jax.pretrained.tensor_writer import Source, write_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _NAMES = "base_model.model.", {A: "lora_A.weight", B: "lora_B.weight", M: "lora_magnitude_vector"}
Arrays = dict[str, np.ndarray]


def write_adapters(family: Family, cfg: ModelConfig, params: Mapping[str, Any], out: Path) -> list[str]:
    """Writes a directory that `PeftModel.from_pretrained` takes.

    Returns:
        Paths of the updates that it does not hold, because they are not of the text path.

    Raises:
        UserError: an update of what PEFT knows no matrix of (experts, GPT-2's fused one), a mixture of LoRA and DoRA,
            nothing to write, or an `out` that exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists already: remove it or give another --out")
    arrays = flatten(params)
    lines = [line for line in family.entries(cfg) if any(slot.path + A in arrays for slot in line.ours)]
    for line in lines:
        if len(line.ours) > 1 or len(line.ours[0].index) > 1:
            raise UserError(f"{line.theirs}: PEFT has no update of it: export the merged weights, without --adapters")
    kinds = {line.ours[0].path + M in arrays for line in lines}
    if len(kinds) != 1:
        raise UserError("model.lora: want updates of the text path, all of them LoRA or all of them DoRA")
    sources = {}
    for line in lines:
        for part, value in _published(family, line, arrays).items():
            name = f"{_PREFIX}{module_name(family, line)}.{_NAMES[part]}"
            sources[name] = Source(value.shape, value.dtype, partial(np.asarray, value))
    ranks = {module_name(family, line): arrays[line.ours[0].path + A].shape[-1] for line in lines}
    out.mkdir(parents=True)
    write_file(out / WEIGHTS, sources)
    (out / CONFIG).write_text(json.dumps(_config(ranks, kinds.pop(), family), indent=2) + "\n")
    written = {line.ours[0].path for line in lines}
    return sorted(path.removesuffix(A) for path in arrays if path.endswith(A) and path.removesuffix(A) not in written)


def _published(family: Family, line: Entry, arrays: Mapping[str, Any]) -> Arrays:
    """PEFT's tensors of one matrix."""
    (slot,) = line.ours
    a, b = (np.asarray(arrays[slot.path + part][slot.index], np.float32) for part in (A, B))
    inputs = a.ndim - 1
    parts = {A: a.reshape(-1, a.shape[-1]).T, B: to_theirs(family, line, b, inputs)}
    if slot.path + M in arrays:
        norms = column_norms(jnp.asarray(arrays[slot.path][slot.index]), inputs)
        magnitude = np.asarray(norms * arrays[slot.path + M][slot.index]).reshape(1, *b.shape[1:])
        parts[M] = to_theirs(family, line, magnitude, inputs)[:, 0]
    return {part: np.ascontiguousarray(value) for part, value in parts.items()}


def _config(ranks: Mapping[str, int], magnitude: bool, family: Family) -> dict[str, Any]:
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {re.escape(name): rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": usual,
        "lora_alpha": usual,  # a scale of 1
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "use_dora": magnitude,
        "use_rslora": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": family.name == UNTRANSPOSED,
        "inference_mode": True,
    }


def read_adapters(
    family: Family, cfg: ModelConfig, params: Mapping[str, Any], directory: Path
) -> tuple[ModelConfig, dict[str, Any]]:
    """The model with the updates of a PEFT directory: `model.lora` names them, layers without one have a zero B.

    Raises UserError for another kind of adapter, tensors of another model, and files that cannot be read.
    """
    values = read_json(directory / CONFIG)
    kinds = {"peft_type": ("LORA",), "bias": ("none",), "use_rslora": (False,), "modules_to_save": (None, [])}
    require(values, kinds)
    if not (directory / WEIGHTS).is_file():
        raise UserError(f"{directory}: no {WEIGHTS} in it; pickles (adapter_model.bin) are not opened")
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in read_header(directory / WEIGHTS).items()}
    arrays, updates = flatten(params), {}
    for line in family.entries(cfg):
        name = module_name(family, line)
        parts = {part: tensors.pop(f"{name}.{key}") for part, key in _NAMES.items() if f"{name}.{key}" in tensors}
        if A in parts and B in parts:
            _fill(updates, arrays, family, line, _read(parts, _scale(values, name, parts[A].shape[0])))
    if tensors or not updates:
        raise UserError(f"{directory}: {sorted(tensors)[0] if tensors else 'nothing'} is no update of {family.name}'s")
    names = [path.removesuffix(A) for path in updates if path.endswith(A)]
    lora = ",".join(f"{n}={'dora' if n + M in updates else ''}{updates[n + A].shape[-1]}" for n in names)
    return dataclasses.replace(cfg, lora=lora), unflatten(arrays | updates)


def _scale(values: HubConfig, name: str, rank: int) -> float:
    alpha = values.get("lora_alpha", rank)
    for pattern, other in (values.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            alpha = other
    return alpha / rank


def _read(parts: Mapping[str, Tensor], scale: float) -> Arrays:
    """A, and B with the scale of their product in it."""
    arrays = {part: np.asarray(tensor.read(), np.float32) for part, tensor in parts.items()}
    return arrays | {B: arrays[B] * np.float32(scale)}


def _fill(updates: Arrays, arrays: Mapping[str, Any], family: Family, line: Entry, parts: Arrays) -> None:
    """One matrix' update into its layer of the stacks, which begin as zeros, magnitudes as ones."""
    slot = line.ours[0]
    whole, count = arrays[slot.path].shape, len(slot.index)
    batch, shape = whole[:count], whole[count:]
    inputs = input_axes(shape, parts[A].shape[1], len(parts[B])) if len(line.ours) == 1 else 0
    if not inputs:
        raise UserError(f"{line.theirs}: its update, {parts[B].shape} x {parts[A].shape}, does not fit {shape}")
    rank, outputs = len(parts[A]), shape[inputs:]
    values = {A: parts[A].T.reshape(*shape[:inputs], rank), B: to_ours(family, line, parts[B], inputs, outputs)}
    if M in parts:
        norms = column_norms(jnp.asarray(arrays[slot.path][slot.index]), inputs)
        magnitude = to_ours(family, line, parts[M].reshape(-1, 1), inputs, outputs)
        values[M] = magnitude.reshape(-1) / np.asarray(norms)
    for part, value in values.items():
        empty = np.full((*batch, *value.shape), part == M, np.float32)
        stack = updates.setdefault(slot.path + part, empty)
        if stack.shape != empty.shape:
            raise UserError(f"{slot.path}: its layers have updates of different ranks, want one rank for a stack")
        stack[slot.index] = value
