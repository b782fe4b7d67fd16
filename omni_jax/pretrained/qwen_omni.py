"""Qwen3-Omni's thinker: whole, and its text path alone as a family of text models. The talker stays behind."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from omni_jax.encoder_config import QwenAudioConfig, QwenVisionConfig, TowerConfig
from omni_jax.errors import UserError
from omni_jax.model_config import ModelConfig
from omni_jax.models.language import LanguageModel
from omni_jax.models.thinker import Thinker, ThinkerConfig
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, number, require
from omni_jax.pretrained.gpt2 import norm
from omni_jax.pretrained.layout import SAME, Entry, Slot, convolution, film_patches, fused_matrices, matrix
from omni_jax.pretrained.mixtral import QWEN3_MOE
from omni_jax.pretrained.whisper import attention, mlp

NAME = "qwen3_omni_moe_thinker"
WHOLE_NAME = "qwen3_omni_moe"  # with the talker and its vocoder
_QKV = ("query", "key", "value")


def read_text_config(values: HubConfig) -> ModelConfig:
    """Of the thinker, or of the whole model's config.json."""
    text = _thinker(values)["text_config"]
    heads = integer(text, "num_attention_heads")
    defaults = {"norm_topk_prob": True, "rope_theta": 1e6, "head_dim": integer(text, "hidden_size") // heads}
    return _with_sections(QWEN3_MOE.read_config({"num_experts_per_tok": 8} | defaults | text), text)


def _thinker(values: HubConfig) -> HubConfig:
    values = values.get("thinker_config", values)
    absent = [name for name in ("text_config", "audio_config", "vision_config") if name not in values]
    if absent:
        raise UserError(f"config.json: has no {absent[0]}: is it the file that was published?")
    return values


def _with_sections(cfg: ModelConfig, text: HubConfig) -> ModelConfig:
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    sections = tuple(rope.get("mrope_section", (24, 20, 20)))
    return dataclasses.replace(cfg, transformer=dataclasses.replace(cfg.transformer, rope_sections=sections))


def read_config(values: HubConfig) -> ThinkerConfig:
    thinker = _thinker(values)
    return ThinkerConfig(
        read_text_config(values), _read_audio(thinker["audio_config"]), _read_vision(thinker["vision_config"])
    )


def _read_audio(values: HubConfig) -> QwenAudioConfig:
    require(values, {"activation_function": ("gelu",), "scale_embedding": (False,)})
    tower = TowerConfig(
        num_layers=integer(values, "encoder_layers", 32),
        embed_dim=integer(values, "d_model", 1280),
        num_heads=integer(values, "encoder_attention_heads", 20),
        mlp_dim=integer(values, "encoder_ffn_dim", 5120),
    )
    chunk = 2 * integer(values, "n_window", 50)
    return QwenAudioConfig(
        tower,
        num_mels=integer(values, "num_mel_bins", 128),
        conv_dim=integer(values, "downsample_hidden_size", 480),
        out_dim=integer(values, "output_dim", 3584),
        chunk_frames=chunk,
        chunks_a_window=integer(values, "n_window_infer", 800) // chunk,
    )


def _read_vision(values: HubConfig) -> QwenVisionConfig:
    require(values, {"hidden_act": ("gelu_pytorch_tanh",), "in_channels": (3,), "spatial_merge_size": (2,)})
    tower = TowerConfig(
        num_layers=integer(values, "depth", 27),
        embed_dim=integer(values, "hidden_size", 1152),
        num_heads=integer(values, "num_heads", 16),
        mlp_dim=integer(values, "intermediate_size", 4304),
        activation="gelu_tanh",
        norm_eps=1e-6,
    )
    return QwenVisionConfig(
        tower,
        patch_size=integer(values, "patch_size", 16),
        temporal_patch=integer(values, "temporal_patch_size", 2),
        grid=math.isqrt(integer(values, "num_position_embeddings", 2304)),
        out_dim=integer(values, "out_hidden_size", 3584),
        deepstack_layers=tuple(values.get("deepstack_visual_indexes", (8, 16, 24))),
        rope_theta=number(values.get("rope_parameters") or {}, "rope_theta", 10_000.0),
    )


def write_config(cfg: ThinkerConfig) -> dict[str, Any]:
    text = QWEN3_MOE.write_config(cfg.text)
    text["rope_parameters"] |= {"mrope_section": list(cfg.text.transformer.rope_sections)}
    text |= {"model_type": "qwen3_omni_moe_text"}
    del text["architectures"]
    return {
        "architectures": ["Qwen3OmniMoeThinkerForConditionalGeneration"],
        "model_type": NAME,
        "tie_word_embeddings": cfg.text.tie_text_head,
        "text_config": text,
        "audio_config": _write_audio(cfg.audio),
        "vision_config": _write_vision(cfg.vision),
    }


def _write_audio(cfg: QwenAudioConfig) -> dict[str, Any]:
    return {
        "model_type": "qwen3_omni_moe_audio_encoder",
        "encoder_layers": cfg.tower.num_layers,
        "d_model": cfg.tower.embed_dim,
        "encoder_attention_heads": cfg.tower.num_heads,
        "encoder_ffn_dim": cfg.tower.mlp_dim,
        "num_mel_bins": cfg.num_mels,
        "downsample_hidden_size": cfg.conv_dim,
        "output_dim": cfg.out_dim,
        "n_window": cfg.chunk_frames // 2,
        "n_window_infer": cfg.chunk_frames * cfg.chunks_a_window,
    }


def _write_vision(cfg: QwenVisionConfig) -> dict[str, Any]:
    return {
        "model_type": "qwen3_omni_moe_vision_encoder",
        "depth": cfg.tower.num_layers,
        "hidden_size": cfg.tower.embed_dim,
        "num_heads": cfg.tower.num_heads,
        "intermediate_size": cfg.tower.mlp_dim,
        "hidden_act": "gelu_pytorch_tanh",
        "patch_size": cfg.patch_size,
        "temporal_patch_size": cfg.temporal_patch,
        "spatial_merge_size": 2,
        "num_position_embeddings": cfg.grid**2,
        "out_hidden_size": cfg.out_dim,
        "deepstack_visual_indexes": list(cfg.deepstack_layers),
        "rope_parameters": {"rope_type": "axial", "rope_theta": cfg.rope_theta},
    }


def entries(cfg: ThinkerConfig) -> list[Entry]:
    parts = (("language", QWEN3_MOE.entries(cfg.text)), ("audio", _audio(cfg.audio)), ("vision", _vision(cfg.vision)))
    return [
        Entry(line.theirs, tuple(Slot(f"{part}/{slot.path}", slot.index) for slot in line.ours), line.layout)
        for part, lines in parts
        for line in lines
    ]


def _audio(cfg: QwenAudioConfig) -> list[Entry]:
    theirs, table = "audio_tower", []
    for name, published in (("first", "conv2d1"), ("second", "conv2d2"), ("third", "conv2d3")):
        table.append(entry(f"{theirs}.{published}.weight", f"{name}/kernel", convolution(2, side=3)))
        table.append(entry(f"{theirs}.{published}.bias", f"{name}/bias", SAME))
    table.append(entry(f"{theirs}.conv_out.weight", "project/kernel", matrix()))
    for layer in range(cfg.tower.num_layers):
        source = f"{theirs}.layers.{layer}"
        table += attention(f"{source}.self_attn", cfg.tower, layer)
        table += norm(f"{source}.self_attn_layer_norm", "layers/attention_norm", layer)
        table += norm(f"{source}.final_layer_norm", "layers/mlp_norm", layer)
        table += mlp(source, layer)
    table += norm(f"{theirs}.ln_post", "norm")
    return table + _linear(f"{theirs}.proj1", "hidden") + _linear(f"{theirs}.proj2", "out")


def _vision(cfg: QwenVisionConfig) -> list[Entry]:
    theirs = "visual"
    table = [
        entry(f"{theirs}.patch_embed.proj.weight", "patch/kernel", film_patches(cfg.temporal_patch)),
        entry(f"{theirs}.patch_embed.proj.bias", "patch/bias", SAME),
        entry(f"{theirs}.pos_embed.weight", "positions", SAME),
        *_merger(f"{theirs}.merger", "merger"),
    ]
    for layer in range(cfg.tower.num_layers):
        source, ours = f"{theirs}.blocks.{layer}", "layers/attention"
        weights = tuple(Slot(f"{ours}/{name}", (layer,)) for name in _QKV)
        biases = tuple(Slot(f"{ours}/{name}_bias", (layer,)) for name in _QKV)
        table += [
            Entry(f"{source}.attn.qkv.weight", weights, fused_matrices(3)),
            Entry(f"{source}.attn.qkv.bias", biases, fused_matrices(3)),
            entry(f"{source}.attn.proj.weight", f"{ours}/out", matrix(2), layer),
            entry(f"{source}.attn.proj.bias", f"{ours}/out_bias", SAME, layer),
            *norm(f"{source}.norm1", "layers/attention_norm", layer),
            *norm(f"{source}.norm2", "layers/mlp_norm", layer),
            *_linear(f"{source}.mlp.linear_fc1", "layers/mlp/up", layer),
            *_linear(f"{source}.mlp.linear_fc2", "layers/mlp/down", layer),
        ]
    for index in range(len(cfg.deepstack_layers)):
        table += _merger(f"{theirs}.merger_list.{index}", "deep_mergers", index)
    return table


def _merger(theirs: str, ours: str, *index: int) -> list[Entry]:
    first, second = (_linear(f"{theirs}.mlp.{i}", f"{ours}/{name}", *index) for i, name in ((0, "hidden"), (2, "out")))
    return [*norm(f"{theirs}.ln_q", f"{ours}/norm", *index), *first, *second]


def _linear(theirs: str, ours: str, *index: int) -> list[Entry]:
    return [
        entry(f"{theirs}.weight", f"{ours}/kernel", matrix(), *index),
        entry(f"{theirs}.bias", f"{ours}/bias", SAME, *index),
    ]


_LEFT = ("talker.*", "code2wav.*", "lm_head.weight")
THINKER = Family(NAME, read_config, write_config, entries, Thinker, prefix="thinker.", unused=_LEFT)
THINKER_TEXT = Family(
    NAME,
    read_text_config,
    QWEN3_MOE.write_config,
    QWEN3_MOE.entries,
    LanguageModel,
    prefix="thinker.",
    unused=(*_LEFT, "audio_tower.*", "visual.*"),
)
