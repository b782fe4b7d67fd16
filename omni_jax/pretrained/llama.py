"""Llama, Qwen2 and Qwen3: dense, rotary, SwiGLU; with biases (Qwen2) or normalised queries and keys (Qwen3)."""

from __future__ import annotations

from typing import Any

from omni_jax.errors import UserError
from omni_jax.model_config import ModelConfig, TransformerConfig, TrunkVariant
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, number, require
from omni_jax.pretrained.layout import FLAT, SAME, Entry, matrix

QKV = ("query", "key", "value")
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
_HEAD_DIM_128 = 128  # Qwen3's default, whatever the width


def read_config(values: HubConfig) -> ModelConfig:
    """Of the three dense families."""
    return ModelConfig(
        vocab_size=integer(values, "vocab_size"),
        transformer=TransformerConfig(**trunk(values), mlp_dim=integer(values, "intermediate_size"), num_experts=0),
        tie_text_head=bool(values.get("tie_word_embeddings", False)),
    )


def trunk(values: HubConfig) -> dict[str, Any]:
    """The keys of `TransformerConfig` that all Llama-like families share, experts and widths of layers apart."""
    require(values, {"hidden_act": ("silu",), "mlp_bias": (False,), "use_sliding_window": (False,)})
    kind, heads = values["model_type"], integer(values, "num_attention_heads")
    if kind == "mixtral":
        require(values, {"sliding_window": (None,)})
    qwen3 = kind.startswith("qwen3")
    default_dim = _HEAD_DIM_128 if qwen3 else integer(values, "hidden_size") // heads
    head_dim = integer(values, "head_dim", default_dim)
    biases: tuple[str, ...] = QKV if kind == "qwen2" else ()
    if values.get("attention_bias"):
        biases = (*QKV, "out")
    theta, stretch = _rope(values, 1e6 if kind == "mixtral" else 1e4)
    return {
        "num_layers": integer(values, "num_hidden_layers"),
        "embed_dim": integer(values, "hidden_size"),
        "num_heads": heads,
        "num_kv_heads": integer(values, "num_key_value_heads", heads),
        "head_dim": head_dim,
        "rope_theta": theta,
        "rope_sections": (head_dim // 2, 0, 0),
        "qk_norm": qwen3,
        "norm_eps": number(values, "rms_norm_eps", 1e-6),
        "variant": TrunkVariant(rope_stretch=stretch, attention_biases=biases),
        "scan_layers": True,
    }


def _rope(values: HubConfig, default_theta: float) -> tuple[float, tuple[float, ...]]:
    """Base and stretch; `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = number(rope, "rope_theta", number(values, "rope_theta", default_theta))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, ()
    if kind != "llama3":
        raise UserError(f"config.json: rope_type={kind!r} is not supported, want 'default' or 'llama3'")
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return theta, tuple(number(rope, name, 0.0) for name in names)


def write_config(name: str, architecture: str, cfg: ModelConfig) -> dict[str, Any]:
    """config.json of a Llama-like model; the families with experts add to it."""
    trunk = cfg.transformer
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": trunk.rope_theta}
    if trunk.variant.rope_stretch:
        factor, low, high, original = trunk.variant.rope_stretch
        rope |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high}
        rope["original_max_position_embeddings"] = int(original)
    return {
        "architectures": [architecture],
        "model_type": name,
        "vocab_size": cfg.vocab_size,
        "hidden_size": trunk.embed_dim,
        "intermediate_size": trunk.mlp_dim,
        "num_hidden_layers": trunk.num_layers,
        "num_attention_heads": trunk.num_heads,
        "num_key_value_heads": trunk.num_kv_heads,
        "head_dim": trunk.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": trunk.norm_eps,
        "rope_parameters": rope,
        "rope_theta": trunk.rope_theta,
        "attention_bias": "out" in trunk.variant.attention_biases,
        "tie_word_embeddings": cfg.tie_text_head,
    }


def entries(cfg: ModelConfig) -> list[Entry]:
    """The table of a dense model."""
    table = outside_layers(cfg)
    for layer in range(cfg.transformer.num_layers):
        table += attention(cfg, layer, "transformer/dense", layer) + dense_mlp(layer, layer)
    return table


def outside_layers(cfg: ModelConfig) -> list[Entry]:
    table = [
        entry("model.embed_tokens.weight", "text_embedding", SAME),
        entry("model.norm.weight", "transformer/norm/scale", SAME),
    ]
    return table if cfg.tie_text_head else [*table, entry("lm_head.weight", "text_head", matrix())]


def attention(cfg: ModelConfig, layer: int, stack: str, index: int) -> list[Entry]:
    """Norms and attention of their layer, which is number `index` of our stack."""
    theirs, ours = f"model.layers.{layer}", f"{stack}/attention"
    table = [
        entry(f"{theirs}.input_layernorm.weight", f"{stack}/attention_norm/scale", SAME, index),
        entry(f"{theirs}.post_attention_layernorm.weight", f"{stack}/mlp_norm/scale", SAME, index),
    ]
    for name, projection in _PROJECTIONS.items():
        layout = matrix(2 if name == "out" else 1)
        table.append(entry(f"{theirs}.self_attn.{projection}.weight", f"{ours}/{name}", layout, index))
        if name in cfg.transformer.variant.attention_biases:
            table.append(entry(f"{theirs}.self_attn.{projection}.bias", f"{ours}/{name}_bias", FLAT, index))
    if cfg.transformer.qk_norm:
        for name, norm in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            table.append(entry(f"{theirs}.self_attn.{norm}.weight", f"{ours}/{name}/scale", SAME, index))
    return table


def dense_mlp(layer: int, index: int) -> list[Entry]:
    return [
        entry(f"model.layers.{layer}.mlp.{name}_proj.weight", f"transformer/dense/mlp/{name}/kernel", matrix(), index)
        for name in ("gate", "up", "down")
    ]


def _family(name: str, architecture: str) -> Family:
    return Family(
        name,
        read_config,
        lambda cfg: write_config(name, architecture, cfg),
        entries,
        unused=("model.layers.*.self_attn.rotary_emb.inv_freq", "lm_head.weight"),
    )


LLAMA = _family("llama", "LlamaForCausalLM")
QWEN2 = _family("qwen2", "Qwen2ForCausalLM")
QWEN3 = _family("qwen3", "Qwen3ForCausalLM")
