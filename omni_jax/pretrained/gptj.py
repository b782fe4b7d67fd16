"""GPT-J: attention and feed-forward side by side, the first dimensions of each head rotary, a head with a bias."""

from __future__ import annotations

from typing import Any

from omni_jax.model_config import ModelConfig, TransformerConfig, TrunkVariant
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, number, require
from omni_jax.pretrained.gpt2 import norm
from omni_jax.pretrained.layout import SAME, Entry, adjacent_pairs, matrix


def read_config(values: HubConfig) -> ModelConfig:
    require(values, {"activation_function": ("gelu_new", "gelu_pytorch_tanh"), "tie_word_embeddings": (False,)})
    width, heads = integer(values, "n_embd"), integer(values, "n_head")
    rotary_dim = integer(values, "rotary_dim", width // heads)
    transformer = TransformerConfig(
        num_layers=integer(values, "n_layer"),
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        mlp_dim=integer(values, "n_inner", 4 * width),
        num_experts=0,
        rope_sections=(rotary_dim // 2, 0, 0),
        norm_eps=number(values, "layer_norm_epsilon", 1e-5),
        qk_norm=False,
        scan_layers=True,
        variant=TrunkVariant(
            rotary_dim=rotary_dim, norm="layer", mlp="gelu_tanh", parallel_block=True, text_head_bias=True
        ),
    )
    return ModelConfig(vocab_size=integer(values, "vocab_size"), transformer=transformer)


def write_config(cfg: ModelConfig) -> dict[str, Any]:
    trunk = cfg.transformer
    return {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "vocab_size": cfg.vocab_size,
        "n_embd": trunk.embed_dim,
        "n_inner": trunk.mlp_dim,
        "n_layer": trunk.num_layers,
        "n_head": trunk.num_heads,
        "rotary_dim": trunk.variant.rotary_dim,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": trunk.norm_eps,
        "tie_word_embeddings": False,
    }


def entries(cfg: ModelConfig) -> list[Entry]:
    table = [
        entry("transformer.wte.weight", "text_embedding", SAME),
        *norm("transformer.ln_f", "transformer/norm"),
        entry("lm_head.weight", "text_head", matrix()),
        entry("lm_head.bias", "text_head_bias", SAME),
    ]
    turned, ours = adjacent_pairs(cfg.transformer.variant.rotary_dim), "transformer/dense"
    for layer in range(cfg.transformer.num_layers):
        theirs = f"transformer.h.{layer}"
        table += [
            *norm(f"{theirs}.ln_1", f"{ours}/attention_norm", layer),
            entry(f"{theirs}.attn.q_proj.weight", f"{ours}/attention/query", turned, layer),
            entry(f"{theirs}.attn.k_proj.weight", f"{ours}/attention/key", turned, layer),
            entry(f"{theirs}.attn.v_proj.weight", f"{ours}/attention/value", matrix(), layer),
            entry(f"{theirs}.attn.out_proj.weight", f"{ours}/attention/out", matrix(2), layer),
            entry(f"{theirs}.mlp.fc_in.weight", f"{ours}/mlp/up/kernel", matrix(), layer),
            entry(f"{theirs}.mlp.fc_in.bias", f"{ours}/mlp/up/bias", SAME, layer),
            entry(f"{theirs}.mlp.fc_out.weight", f"{ours}/mlp/down/kernel", matrix(), layer),
            entry(f"{theirs}.mlp.fc_out.bias", f"{ours}/mlp/down/bias", SAME, layer),
        ]
    return table


GPTJ = Family(
    "gptj",
    read_config,
    write_config,
    entries,
    unused=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),
)
