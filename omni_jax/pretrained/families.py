"""The literal table of families, and how a config.json finds its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omni_jax.errors import UserError
from omni_jax.pretrained.family import Family
from omni_jax.pretrained.gpt2 import GPT2
from omni_jax.pretrained.gptj import GPTJ
from omni_jax.pretrained.llama import LLAMA, QWEN2, QWEN3
from omni_jax.pretrained.mixtral import MIXTRAL, QWEN3_MOE
from omni_jax.pretrained.qwen_omni import NAME, THINKER_TEXT, WHOLE_NAME
from omni_jax.pretrained.tensor_files import read_json
from omni_jax.pretrained.vision import CLIP, SIGLIP, SIGLIP2
from omni_jax.pretrained.whisper import WHISPER

TEXT_FAMILIES = {family.name: family for family in (GPT2, GPTJ, LLAMA, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE)}
ENCODER_FAMILIES = {family.name: family for family in (WHISPER, CLIP, SIGLIP, SIGLIP2)}
_WITH_TEXT_ENCODER = {"clip": CLIP, "siglip": SIGLIP, "siglip2": SIGLIP2}  # whole models, of which we take the vision
_TEXT_PATHS = {NAME: THINKER_TEXT, WHOLE_NAME: THINKER_TEXT}  # of larger models


def read_config(directory: Path) -> dict[str, Any]:
    """A published checkpoint's config.json. Raises UserError."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory: give the directory of a published checkpoint")
    return read_json(directory / "config.json")


def family_of(values: dict[str, Any]) -> Family:
    """Raises UserError for an architecture that has no table here."""
    families = TEXT_FAMILIES | ENCODER_FAMILIES | _WITH_TEXT_ENCODER | _TEXT_PATHS
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in families:
        raise UserError(f"config.json: model_type={kind!r} is not known here, want one of {', '.join(families)}")
    return families[kind]
