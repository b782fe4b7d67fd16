"""GPT-2: learned positions, layer norms, one fused matrix for queries, keys and values, tied head."""

from __future__ import annotations

from typing import Any

from omni_jax.model_config import ModelConfig, TransformerConfig, TrunkVariant
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, number, require
from omni_jax.pretrained.layout import SAME, Entry, Slot, fused, untransposed

_QKV = ("query", "key", "value")


def read_config(values: HubConfig) -> ModelConfig:
    require(
        values,
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
            "tie_word_embeddings": (True,),
        },
    )
    width, heads = integer(values, "n_embd"), integer(values, "n_head")
    transformer = TransformerConfig(
        num_layers=integer(values, "n_layer"),
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        mlp_dim=integer(values, "n_inner", 4 * width),
        num_experts=0,
        norm_eps=number(values, "layer_norm_epsilon", 1e-5),
        qk_norm=False,
        scan_layers=True,
        variant=TrunkVariant(
            learned_positions=integer(values, "n_positions"),
            norm="layer",
            attention_biases=(*_QKV, "out"),
            mlp="gelu_tanh",
        ),
    )
    return ModelConfig(vocab_size=integer(values, "vocab_size"), transformer=transformer, tie_text_head=True)


def write_config(cfg: ModelConfig) -> dict[str, Any]:
    trunk = cfg.transformer
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": cfg.vocab_size,
        "n_embd": trunk.embed_dim,
        "n_inner": trunk.mlp_dim,
        "n_layer": trunk.num_layers,
        "n_head": trunk.num_heads,
        "n_positions": trunk.variant.learned_positions,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": trunk.norm_eps,
        "tie_word_embeddings": True,
    }


def entries(cfg: ModelConfig) -> list[Entry]:
    table = [
        entry("wte.weight", "text_embedding", SAME),
        entry("wpe.weight", "transformer/positions", SAME),
        *norm("ln_f", "transformer/norm"),
    ]
    for layer in range(cfg.transformer.num_layers):
        table += _layer(f"h.{layer}", layer)
    return table


def _layer(theirs: str, layer: int) -> list[Entry]:
    ours = "transformer/dense"
    weights = tuple(Slot(f"{ours}/attention/{name}", (layer,)) for name in _QKV)
    biases = tuple(Slot(f"{ours}/attention/{name}_bias", (layer,)) for name in _QKV)
    return [
        *norm(f"{theirs}.ln_1", f"{ours}/attention_norm", layer),
        *norm(f"{theirs}.ln_2", f"{ours}/mlp_norm", layer),
        Entry(f"{theirs}.attn.c_attn.weight", weights, fused(3, inputs=1)),
        Entry(f"{theirs}.attn.c_attn.bias", biases, fused(3, inputs=0)),
        entry(f"{theirs}.attn.c_proj.weight", f"{ours}/attention/out", untransposed(2), layer),
        entry(f"{theirs}.attn.c_proj.bias", f"{ours}/attention/out_bias", SAME, layer),
        entry(f"{theirs}.mlp.c_fc.weight", f"{ours}/mlp/up/kernel", untransposed(), layer),
        entry(f"{theirs}.mlp.c_fc.bias", f"{ours}/mlp/up/bias", SAME, layer),
        entry(f"{theirs}.mlp.c_proj.weight", f"{ours}/mlp/down/kernel", untransposed(), layer),
        entry(f"{theirs}.mlp.c_proj.bias", f"{ours}/mlp/down/bias", SAME, layer),
    ]


def norm(theirs: str, ours: str, *index: int) -> list[Entry]:
    """A layer norm's two vectors."""
    return [
        entry(f"{theirs}.weight", f"{ours}/scale", SAME, *index),
        entry(f"{theirs}.bias", f"{ours}/bias", SAME, *index),
    ]


GPT2 = Family(
    "gpt2",
    read_config,
    write_config,
    entries,
    prefix="transformer.",
    unused=("h.*.attn.bias", "h.*.attn.masked_bias", "lm_head.weight"),
)
