"""What a model must compute, by an explicit convention, and how many parameters it has."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax

from omni_jax.config import Config
from omni_jax.model_config import ModelConfig
from omni_jax.models import omni
from omni_jax.models.adapters import PATCHES_PER_TOKEN
from omni_jax.types import WHISPER_FRAMES_PER_SLOT

_LOOKED_UP = ("text_embedding", "speech_embedding", "modality_embedding", "rows", "columns", "text", "codes")


class Parameters(NamedTuple):
    total: int
    active: int  # with `experts_per_token` of the experts


def count_parameters(config: Config) -> Parameters:
    sizes = [(path, leaf.size) for path, leaf in _leaves(config.model)]
    total = sum(size for _, size in sizes)
    idle = sum(size - _active(config.model, path, size) for path, size in sizes)
    return Parameters(total, round(total - idle))


def padded_flops(config: Config, fill: Mapping[str, float]) -> float:
    """The share of a step's FLOPs that is spent on padding: a batch of only the real parts costs the rest.

    Args:
        fill: what `training/fill.py` measures of a batch; a budget that is not in it is empty, and counts as full.
    """
    data = config.data
    real = dataclasses.replace(
        data,
        row_positions=fill["fill/positions"] * data.row_positions,
        audio_slots=fill.get("fill/audio_slots", 1.0) * data.audio_slots,
        patches=fill.get("fill/patches", 1.0) * data.patches,
        speech_positions=fill.get("fill/speech_positions", 1.0) * data.speech_positions,
    )
    # A Config would refuse room for a part of a picture.
    return 1.0 - model_flops(SimpleNamespace(model=config.model, data=real)) / model_flops(config)


def model_flops(config: Config) -> float:
    """FLOPs of one step on all devices: 6 a matrix parameter and position, plus attention.

    Counted are matrix products, three times the forward pass (the gradients of inputs and of weights), with the chosen
    experts only; causal attention at half its square, other attention whole. Not counted: what rematerialisation
    computes again, lookups, norms, convolution of single channels, the router's choice, the optimizer. Every position
    of the batch counts, as if rows and pools were full.
    """
    data, model = config.data, config.model
    trunk, rows = model.transformer, data.rows
    positions, encoded = rows * data.row_positions, 0 if data.written_media else rows
    slots, patches = encoded * data.audio_slots, encoded * data.patches
    frames = rows * data.speech_positions
    products: dict[str, float] = dict.fromkeys(("transformer", "text_head", "turn_head"), positions)
    heard = slots * (1 if model.audio.tower is None else WHISPER_FRAMES_PER_SLOT)
    products |= {"audio_encoder": heard, "audio_adapter": slots}
    products |= {"vision_encoder": patches, "vision_adapter": patches / PATCHES_PER_TOKEN}
    # All codebooks at the chosen frames, the first one at every position.
    products["speech_decoder"] = frames * model.num_codebooks + (positions if frames else 0)
    flops = sum(6.0 * products[path[0]] * _active(model, path, size) for path, size in _matrices(model))
    if model.tie_text_head:
        flops += 6.0 * positions * model.vocab_size * trunk.embed_dim
    if model.text_posteriors:
        flops += 12.0 * slots * model.vocab_size * trunk.embed_dim
    flops += 6.0 * positions * data.row_positions * trunk.num_heads * trunk.head_dim * trunk.num_layers
    return flops + _encoder_attention(config, slots, patches)


def _encoder_attention(config: Config, slots: int, patches: int) -> float:
    if config.model.text_only:
        return 0.0
    audio, vision = config.model.audio, config.model.vision
    hearing = slots * min(audio.left_context_slots, config.data.audio_slots) * audio.embed_dim * audio.num_layers
    seeing = patches * min(vision.num_patches, config.data.patches) * vision.embed_dim * vision.num_layers
    return 12.0 * (hearing + seeing)


@functools.lru_cache(maxsize=4)
def _matrices(model: ModelConfig) -> list[tuple[tuple[str, ...], int]]:
    """Parameters that positions are multiplied with."""
    axes = jax.tree_util.tree_leaves_with_path(omni.param_axes(model))
    ranks = {
        _names(path): len([name for name in leaf.names if name not in ("layers", "codebook")]) for path, leaf in axes
    }
    sizes = [(path, leaf.size) for path, leaf in _leaves(model)]
    return [(path, size) for path, size in sizes if ranks[path] > 1 and not set(path) & set(_LOOKED_UP)]


def _active(model: ModelConfig, path: tuple[str, ...], size: int) -> float:
    trunk = model.transformer
    is_expert = "moe" in path and path[-1] in ("gate", "up", "down")
    return size * trunk.experts_per_token / trunk.num_experts if is_expert else size


def _leaves(model: ModelConfig) -> list[tuple[tuple[str, ...], Any]]:
    shapes = jax.eval_shape(lambda key: omni.init_params(model, key), jax.random.key(0))
    return [(_names(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)]


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(key.key) for key in path)
