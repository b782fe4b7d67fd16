"""The start of stage 2 from published parts: trunk and vocabulary, encoders, a codec; what is missing is drawn anew."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax.checkpoint import save_params
from omni_jax.config import Config
from omni_jax.config_dict import to_dict
from omni_jax.encoder_config import VisionTowerConfig, WhisperEncoderConfig
from omni_jax.errors import UserError
from omni_jax.input_pipeline.tokenizer import NUM_CONTROL
from omni_jax.model_config import AudioEncoderConfig, ModelConfig, VisionEncoderConfig
from omni_jax.models import omni
from omni_jax.models.binding import RUNS_ONCE
from omni_jax.models.encoders.tower import VisionTower, WhisperEncoder
from omni_jax.models.language import LanguageModel
from omni_jax.parallel.sharding import param_shardings
from omni_jax.pretrained.codec_part import CodecPart, read_codec_part, write_codec_part
from omni_jax.pretrained.families import family_of, read_config
from omni_jax.pretrained.importing import MODEL, PUBLISHED, REPORT, Imported, copy_published, load_model

KINDS = {"text": LanguageModel, "audio": WhisperEncoder, "vision": VisionTower}
CODEC = "codec"
_NOISE = 0.1  # of the old rows' spread; tells the control tokens apart


def assemble(
    config: Config, directories: Mapping[str, str | Path], out: str | Path, mesh: Mesh, ignore: Sequence[str] = ()
) -> Path:
    """Writes a workdir around published parts, for `training.init_from`; on text it says what the published one said.

    Old token i becomes token `NUM_CONTROL` + i, because the control tokens have the same ids in every vocabulary. They
    start near the mean of the old rows. Adapters, the speech decoder and what has no published part are drawn anew as
    `config.seed` says; with a text model the modality embedding starts at zero, so that text is heard unchanged.

    Args:
        directories: of published parts: text, audio, vision, and codec, which may also be a codec stage's workdir. A
            published codec becomes the workdir `out`/codec.

    Raises:
        UserError: whatever `load_model` and `read_codec_part` refuse, a part of another kind, or an `out` that exists.
            Nothing is left then.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already: remove it or give another --out")
    parts = {kind: _load(kind, Path(directories[kind]), mesh, ignore) for kind in KINDS if kind in directories}
    codec = read_codec_part(directories[CODEC], config.model.num_codebooks) if CODEC in directories else None
    config = assembled_config(config, parts, codec)
    params = _join(config.model, {kind: part.params for kind, part in parts.items()}, config.seed, mesh)
    try:
        save_params(out, config, params)
        for kind in parts:
            copy_published(Path(directories[kind]), out / PUBLISHED / ("" if kind == "text" else kind))
        if codec is not None and codec.params is not None:
            write_codec_part(out / CODEC, codec, config)
        (out / MODEL).write_text(json.dumps(to_dict(config.model), indent=2) + "\n")
        reports = {kind: part.report._asdict() for kind, part in parts.items()}
        (out / REPORT).write_text(json.dumps(reports, indent=2) + "\n")
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return out


def assembled_config(config: Config, parts: Mapping[str, Imported], codec: CodecPart | None) -> Config:
    """`config` with the published parts' shapes; the text model's vocabulary comes behind the control tokens."""
    model = config.model
    if "text" in parts:
        text = parts["text"].config
        model = dataclasses.replace(
            model,
            transformer=text.transformer,
            vocab_size=NUM_CONTROL + text.vocab_size,
            tie_text_head=text.tie_text_head,
        )
    if "audio" in parts:
        model = dataclasses.replace(model, audio=_audio_config(model.audio, parts["audio"].config))
    if "vision" in parts:
        model = dataclasses.replace(model, vision=_vision_config(parts["vision"].config))
    # The stage's room for patches was made for its own pictures.
    config = dataclasses.replace(config, model=model, data=config.data.for_pictures(model.vision.num_patches))
    if codec is None:
        return config
    shape = {"num_codebooks": codec.config.num_codebooks, "codebook_size": codec.config.codebook_size}
    return dataclasses.replace(config, model=dataclasses.replace(model, **shape), codec=codec.config)


def _audio_config(ours: AudioEncoderConfig, whisper: WhisperEncoderConfig) -> AudioEncoderConfig:
    """The heads stay as they are configured."""
    return dataclasses.replace(ours, num_mels=whisper.num_mels, tower=whisper, **_sizes(whisper))


def _vision_config(tower: VisionTowerConfig) -> VisionEncoderConfig:
    """Pictures of the size that the encoder has learned, or a patch wider, since patches are pooled by 2 x 2."""
    side = tower.grid + tower.grid % 2
    return VisionEncoderConfig(side * tower.patch_size, tower.patch_size, tower=tower, **_sizes(tower))


def _sizes(published: WhisperEncoderConfig | VisionTowerConfig) -> dict[str, int]:
    return {name: getattr(published.tower, name) for name in ("num_layers", "embed_dim", "num_heads", "mlp_dim")}


def _load(kind: str, directory: Path, mesh: Mesh, ignore: Sequence[str]) -> Imported:
    family = family_of(read_config(directory))
    if family.model is not KINDS[kind]:
        found = next(name for name, model in KINDS.items() if model is family.model)
        raise UserError(f"--{kind}={directory}: {family.name} is for --{found}")
    return load_model(directory, mesh, ignore=ignore)


def _join(model: ModelConfig, parts: dict[str, dict[str, Any]], seed: int, mesh: Mesh) -> dict[str, Any]:
    """The new model's parameters, made where they belong."""
    shardings = param_shardings(mesh, omni.param_axes(model))

    @partial(jax.jit, out_shardings=shardings)
    def join(parts: dict[str, dict[str, Any]], key: PRNGKeyArray) -> dict[str, Any]:
        params = omni.init_params(model, jax.random.fold_in(key, 0))
        for kind in parts.keys() & {"audio", "vision"}:
            params[f"{kind}_encoder"] = params[f"{kind}_encoder"] | {"tower": parts[kind]}
        if "text" not in parts:
            return params
        still = {"modality_embedding": jnp.zeros_like(params["modality_embedding"])}
        return params | still | _with_vocabulary(parts["text"], key)

    key = jax.random.key(seed)
    return join.lower(parts, key).compile(compiler_options=RUNS_ONCE)(parts, key)


def _with_vocabulary(text: dict[str, Any], key: PRNGKeyArray) -> dict[str, Any]:
    """The text model's parameters with rows for the control tokens."""
    axes = {"text_embedding": 0, "text_head": 1, "text_head_bias": 0}
    keys = dict(zip(axes, jax.random.split(key, len(axes))))
    new = {name: _with_control_tokens(text[name], axis, keys[name]) for name, axis in axes.items() if name in text}
    return {"transformer": text["transformer"]} | new


def _with_control_tokens(old: Float[Array, "..."], axis: int, key: PRNGKeyArray) -> Float[Array, "..."]:
    mean, spread = jnp.mean(old, axis, keepdims=True), jnp.std(old, axis, keepdims=True)
    shape = (*old.shape[:axis], NUM_CONTROL, *old.shape[axis + 1 :])
    new = jnp.broadcast_to(mean, shape) + _NOISE * jnp.broadcast_to(spread, shape) * jax.random.normal(key, shape)
    return jnp.concatenate([new.astype(old.dtype), old], axis)
