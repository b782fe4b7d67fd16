"""The start of stage 2 from a published text model: its trunk and vocabulary in an omni model, the rest new."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax.checkpoint import save_params
from omni_jax.config import Config, ModelConfig, to_dict
from omni_jax.errors import UserError
from omni_jax.models import omni
from omni_jax.models.binding import RUNS_ONCE
from omni_jax.models.language import LanguageModel
from omni_jax.parallel.sharding import param_shardings
from omni_jax.pretrained.families import family_of, read_config
from omni_jax.pretrained.importing import MODEL, PUBLISHED, copy_published, load_model
from omni_jax.types import Control

NUM_CONTROL = len(Control)
_NOISE = 0.1  # of the old rows' spread; tells the control tokens apart


def assembled_config(model: ModelConfig, text: ModelConfig) -> ModelConfig:
    """`model` with the text model's trunk and its vocabulary behind the control tokens."""
    return dataclasses.replace(
        model,
        transformer=text.transformer,
        vocab_size=NUM_CONTROL + text.vocab_size,
        tie_text_head=text.tie_text_head,
    )


def assemble(
    config: Config, text_directory: str | Path, out: str | Path, mesh: Mesh, ignore: Sequence[str] = ()
) -> Path:
    """Writes a workdir whose model says on text what the published one said, for `training.init_from`.

    Old token i becomes token `NUM_CONTROL` + i, because the control tokens have the same ids in every vocabulary. They
    start near the mean of the old rows. Encoders, adapters and the speech decoder are drawn anew as `config.seed`
    says; the modality embedding starts at zero, so that text is heard unchanged.

    Raises:
        UserError: whatever `load_model` refuses, an encoder's directory, or an `out` that exists. Nothing is left then.
    """
    directory, out = Path(text_directory), Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already: remove it or give another --out")
    family = family_of(read_config(directory))
    if family.model is not LanguageModel:
        raise UserError(f"--text={directory}: {family.name} is an encoder, want a text model")
    text = load_model(directory, mesh, ignore=ignore)
    model = assembled_config(config.model, text.config)
    params = _join(model, text.params, config.seed, mesh)
    try:
        save_params(out, dataclasses.replace(config, model=model), params)
        copy_published(directory, out / PUBLISHED)
        (out / MODEL).write_text(json.dumps(to_dict(model), indent=2) + "\n")
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return out


def _join(model: ModelConfig, text: dict[str, Any], seed: int, mesh: Mesh) -> dict[str, Any]:
    """The new model's parameters, made where they belong."""
    shardings = param_shardings(mesh, omni.param_axes(model))

    @partial(jax.jit, out_shardings=shardings)
    def join(text: dict[str, Any], key: PRNGKeyArray) -> dict[str, Any]:
        fresh = omni.init_params(model, jax.random.fold_in(key, 0))
        keys = dict(zip(("text_embedding", "text_head", "text_head_bias"), jax.random.split(key, 3)))
        extended = {
            name: _with_control_tokens(text[name], axis, keys[name])
            for name, axis in (("text_embedding", 0), ("text_head", 1), ("text_head_bias", 0))
            if name in text
        }
        still = {"modality_embedding": jnp.zeros_like(fresh["modality_embedding"])}
        return fresh | {"transformer": text["transformer"]} | extended | still

    key = jax.random.key(seed)
    return join.lower(text, key).compile(compiler_options=RUNS_ONCE)(text, key)


def _with_control_tokens(old: Float[Array, "..."], axis: int, key: PRNGKeyArray) -> Float[Array, "..."]:
    mean, spread = jnp.mean(old, axis, keepdims=True), jnp.std(old, axis, keepdims=True)
    shape = (*old.shape[:axis], NUM_CONTROL, *old.shape[axis + 1 :])
    new = jnp.broadcast_to(mean, shape) + _NOISE * jnp.broadcast_to(spread, shape) * jax.random.normal(key, shape)
    return jnp.concatenate([new.astype(old.dtype), old], axis)
