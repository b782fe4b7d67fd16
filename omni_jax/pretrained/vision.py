"""CLIP's, SigLIP's and SigLIP 2's vision encoders; their text encoders and pooling heads stay behind."""

from __future__ import annotations

import math
from typing import Any

from omni_jax.encoder_config import TowerConfig, VisionTowerConfig
from omni_jax.errors import UserError
from omni_jax.models.encoders.tower import VisionTower
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, number, require
from omni_jax.pretrained.gpt2 import norm
from omni_jax.pretrained.layout import SAME, Entry, Layout, Slot, convolution, leading_row, matrix
from omni_jax.pretrained.whisper import attention, mlp

_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def read_clip(values: HubConfig) -> VisionTowerConfig:
    values = values.get("vision_config", values)
    return VisionTowerConfig(
        _tower(values, "quick_gelu", 1e-5),
        integer(values, "patch_size", 32),
        _grid(values),
        clip=True,
        mean=_CLIP_MEAN,
        std=_CLIP_STD,
    )


def read_siglip(values: HubConfig) -> VisionTowerConfig:
    values = values.get("vision_config", values)
    return VisionTowerConfig(
        _tower(values, "gelu_pytorch_tanh", 1e-6), integer(values, "patch_size", 16), _grid(values)
    )


def _tower(values: HubConfig, activation: str, eps: float) -> TowerConfig:
    require(values, {"hidden_act": tuple(_ACTIVATIONS), "num_channels": (3,)})
    return TowerConfig(
        num_layers=integer(values, "num_hidden_layers", 12),
        embed_dim=integer(values, "hidden_size", 768),
        num_heads=integer(values, "num_attention_heads", 12),
        mlp_dim=integer(values, "intermediate_size", 3072),
        activation=_ACTIVATIONS[values.get("hidden_act", activation)],
        norm_eps=number(values, "layer_norm_eps", eps),
    )


def _grid(values: HubConfig) -> int:
    """Learned positions a side: SigLIP 2 states their number, the others the picture's size."""
    if "num_patches" in values:
        side = math.isqrt(integer(values, "num_patches"))
        if side**2 != values["num_patches"]:
            raise UserError(f"config.json: num_patches={values['num_patches']}, want a square number")
        return side
    return integer(values, "image_size", 224) // integer(values, "patch_size", 16)


def _entries(cfg: VisionTowerConfig, patch: Layout) -> list[Entry]:
    table = [entry("embeddings.patch_embedding.weight", "patch/kernel", patch)]
    positions = "embeddings.position_embedding.weight"
    if cfg.clip:
        table += [
            entry("embeddings.class_embedding", "class_embedding", SAME),
            Entry(positions, (Slot("class_position"), Slot("positions")), leading_row()),
            *norm("pre_layrnorm", "pre_norm"),  # spelt so in the files
        ]
    else:
        table += [
            entry("embeddings.patch_embedding.bias", "patch/bias", SAME),
            entry(positions, "positions", SAME),
            *norm("post_layernorm", "norm"),
        ]
    for layer in range(cfg.tower.num_layers):
        theirs = f"encoder.layers.{layer}"
        table += attention(f"{theirs}.self_attn", cfg.tower, layer)
        table += norm(f"{theirs}.layer_norm1", "layers/attention_norm", layer)
        table += norm(f"{theirs}.layer_norm2", "layers/mlp_norm", layer)
        table += mlp(f"{theirs}.mlp", layer)
    return table


def _write(name: str, cfg: VisionTowerConfig) -> dict[str, Any]:
    size = {"num_patches": cfg.grid**2} if name == "siglip2" else {"image_size": cfg.grid * cfg.patch_size}
    return size | {
        "model_type": f"{name}_vision_model",
        "hidden_size": cfg.tower.embed_dim,
        "num_hidden_layers": cfg.tower.num_layers,
        "num_attention_heads": cfg.tower.num_heads,
        "intermediate_size": cfg.tower.mlp_dim,
        "hidden_act": {ours: theirs for theirs, ours in _ACTIVATIONS.items()}[cfg.tower.activation],
        "layer_norm_eps": cfg.tower.norm_eps,
        "patch_size": cfg.patch_size,
        "num_channels": 3,
    }


def _family(name: str) -> Family:
    """Patch weights are a convolution's, in SigLIP 2 a matrix over (row, column, channel)."""
    return Family(
        f"{name}_vision_model",
        read_clip if name == "clip" else read_siglip,
        lambda cfg: _write(name, cfg),
        lambda cfg: _entries(cfg, matrix() if name == "siglip2" else convolution(2)),
        VisionTower,
        prefix="vision_model.",
        unused=(
            "head.*",
            "post_layernorm.*",  # CLIP's, of the pooled output
            "text_model.*",
            "logit_scale",
            "logit_bias",
            "visual_projection.weight",
            "text_projection.weight",
            "embeddings.position_ids",
        ),
    )


CLIP, SIGLIP, SIGLIP2 = _family("clip"), _family("siglip"), _family("siglip2")
