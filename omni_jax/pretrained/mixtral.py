"""Mixtral and Qwen3-MoE: Llama's attention (Qwen3's in the latter) and experts instead of one feed-forward."""

from __future__ import annotations

from typing import Any

from omni_jax.errors import UserError
from omni_jax.model_config import ModelConfig, TransformerConfig
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, require
from omni_jax.pretrained.layout import Entry, matrix
from omni_jax.pretrained.llama import attention, dense_mlp, outside_layers, trunk, write_config

_EXPERT_NAMES = {
    "mixtral": ("block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}),
    "qwen3_moe": ("mlp", {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}),
}


def read_mixtral(values: HubConfig) -> ModelConfig:
    width = integer(values, "intermediate_size")
    return _model(values, num_dense_layers=0, mlp_dim=width, expert_dim=width)


def read_qwen3_moe(values: HubConfig) -> ModelConfig:
    require(values, {"decoder_sparse_step": (1,), "norm_topk_prob": (True,)})
    if "norm_topk_prob" not in values:
        raise UserError("config.json: norm_topk_prob is missing, want true: gates sum to 1 here")
    dense = values.get("mlp_only_layers") or []
    if sorted(dense) != list(range(len(dense))):
        raise UserError(f"config.json: mlp_only_layers={dense}: only the first layers may be dense here")
    return _model(
        values,
        num_dense_layers=len(dense),
        mlp_dim=integer(values, "intermediate_size"),
        expert_dim=integer(values, "moe_intermediate_size"),
    )


def _model(values: HubConfig, **widths: int) -> ModelConfig:
    experts = values.get("num_local_experts") or values.get("num_experts")
    return ModelConfig(
        vocab_size=integer(values, "vocab_size"),
        transformer=TransformerConfig(
            **trunk(values),
            **widths,
            num_experts=integer({"num_experts": experts}, "num_experts"),
            experts_per_token=integer(values, "num_experts_per_tok", 2),
            moe_dispatch="sorted",
        ),
        tie_text_head=bool(values.get("tie_word_embeddings", False)),
    )


def _write_mixtral(cfg: ModelConfig) -> dict[str, Any]:
    values = write_config("mixtral", "MixtralForCausalLM", cfg)
    trunk = cfg.transformer
    values |= {"intermediate_size": trunk.expert_dim, "num_local_experts": trunk.num_experts, "sliding_window": None}
    return values | {"num_experts_per_tok": trunk.experts_per_token}


def _write_qwen3_moe(cfg: ModelConfig) -> dict[str, Any]:
    trunk = cfg.transformer
    return write_config("qwen3_moe", "Qwen3MoeForCausalLM", cfg) | {
        "moe_intermediate_size": trunk.expert_dim,
        "num_experts": trunk.num_experts,
        "num_experts_per_tok": trunk.experts_per_token,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(trunk.num_dense_layers)),
    }


def _entries(name: str, cfg: ModelConfig) -> list[Entry]:
    table, dense = outside_layers(cfg), cfg.transformer.num_dense_layers
    for layer in range(dense):
        table += attention(cfg, layer, "transformer/dense", layer) + dense_mlp(layer, layer)
    for layer in range(dense, cfg.transformer.num_layers):
        index = layer - dense
        table += attention(cfg, layer, "transformer/sparse", index)
        table += _experts(name, cfg.transformer.num_experts, layer, index)
    return table


def _experts(name: str, num_experts: int, layer: int, index: int) -> list[Entry]:
    group, names = _EXPERT_NAMES[name]
    theirs, ours = f"model.layers.{layer}.{group}", "transformer/sparse/moe"
    table = [entry(f"{theirs}.gate.weight", f"{ours}/router", matrix(), index)]
    for expert in range(num_experts):
        for part, published in names.items():
            source = f"{theirs}.experts.{expert}.{published}.weight"
            table.append(entry(source, f"{ours}/{part}", matrix(), index, expert))
    return table


MIXTRAL = Family("mixtral", read_mixtral, _write_mixtral, lambda cfg: _entries("mixtral", cfg))
QWEN3_MOE = Family("qwen3_moe", read_qwen3_moe, _write_qwen3_moe, lambda cfg: _entries("qwen3_moe", cfg))
