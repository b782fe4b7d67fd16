"""Whisper: its encoder for the omni model, which leaves the decoder behind, and whole for recognition."""

from __future__ import annotations

from typing import Any

from omni_jax.encoder_config import TowerConfig, WhisperConfig, WhisperEncoderConfig
from omni_jax.models.encoders.tower import WhisperEncoder
from omni_jax.models.whisper import Whisper
from omni_jax.pretrained.family import Family, HubConfig, entry, integer, require
from omni_jax.pretrained.gpt2 import norm
from omni_jax.pretrained.layout import FLAT, SAME, Entry, Slot, convolution, matrix

_BIASES = ("query", "value", "out")
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def read_config(values: HubConfig) -> WhisperEncoderConfig:
    require(values, {"activation_function": ("gelu",)})
    tower = TowerConfig(
        num_layers=integer(values, "encoder_layers"),
        embed_dim=integer(values, "d_model"),
        num_heads=integer(values, "encoder_attention_heads"),
        mlp_dim=integer(values, "encoder_ffn_dim"),
        biases=_BIASES,
    )
    positions = integer(values, "max_source_positions", 1500)
    return WhisperEncoderConfig(tower, integer(values, "num_mel_bins", 80), positions)


def write_config(cfg: WhisperEncoderConfig) -> dict[str, Any]:
    """The encoder's keys of config.json."""
    return {
        "model_type": "whisper",
        "activation_function": "gelu",
        "encoder_layers": cfg.tower.num_layers,
        "d_model": cfg.tower.embed_dim,
        "encoder_attention_heads": cfg.tower.num_heads,
        "encoder_ffn_dim": cfg.tower.mlp_dim,
        "num_mel_bins": cfg.num_mels,
        "max_source_positions": cfg.num_positions,
    }


def entries(cfg: WhisperEncoderConfig) -> list[Entry]:
    table = [
        entry("encoder.conv1.weight", "first/kernel", convolution(1)),
        entry("encoder.conv1.bias", "first/bias", SAME),
        entry("encoder.conv2.weight", "second/kernel", convolution(1)),
        entry("encoder.conv2.bias", "second/bias", SAME),
        entry("encoder.embed_positions.weight", "positions", SAME),
        *norm("encoder.layer_norm", "norm"),
    ]
    for layer in range(cfg.tower.num_layers):
        theirs = f"encoder.layers.{layer}"
        table += attention(f"{theirs}.self_attn", cfg.tower, layer)
        table += norm(f"{theirs}.self_attn_layer_norm", "layers/attention_norm", layer)
        table += norm(f"{theirs}.final_layer_norm", "layers/mlp_norm", layer)
        table += mlp(theirs, layer)
    return table


def attention(theirs: str, tower: TowerConfig, layer: int, ours: str = "layers/attention") -> list[Entry]:
    """The four projections of a tower's layer; CLIP and SigLIP name them alike."""
    table = []
    for name, projection in _PROJECTIONS.items():
        layout = matrix(2 if name == "out" else 1)
        table.append(entry(f"{theirs}.{projection}.weight", f"{ours}/{name}", layout, layer))
        if name in tower.biases:
            table.append(entry(f"{theirs}.{projection}.bias", f"{ours}/{name}_bias", FLAT, layer))
    return table


def mlp(theirs: str, layer: int) -> list[Entry]:
    return [
        line
        for name, published in (("up", "fc1"), ("down", "fc2"))
        for line in (
            entry(f"{theirs}.{published}.weight", f"layers/mlp/{name}/kernel", matrix(), layer),
            entry(f"{theirs}.{published}.bias", f"layers/mlp/{name}/bias", SAME, layer),
        )
    ]


def read_whole_config(values: HubConfig) -> WhisperConfig:
    require(values, {"scale_embedding": (False,), "tie_word_embeddings": (True,)})
    decoder = TowerConfig(
        num_layers=integer(values, "decoder_layers"),
        embed_dim=integer(values, "d_model"),
        num_heads=integer(values, "decoder_attention_heads"),
        mlp_dim=integer(values, "decoder_ffn_dim"),
        biases=_BIASES,
    )
    vocab_size, positions = integer(values, "vocab_size"), integer(values, "max_target_positions", 448)
    return WhisperConfig(read_config(values), decoder, vocab_size, positions)


def write_whole_config(cfg: WhisperConfig) -> dict[str, Any]:
    return write_config(cfg.encoder) | {
        "architectures": ["WhisperForConditionalGeneration"],
        "is_encoder_decoder": True,
        "decoder_layers": cfg.decoder.num_layers,
        "decoder_attention_heads": cfg.decoder.num_heads,
        "decoder_ffn_dim": cfg.decoder.mlp_dim,
        "vocab_size": cfg.vocab_size,
        "max_target_positions": cfg.num_text_positions,
    }


def whole_entries(cfg: WhisperConfig) -> list[Entry]:
    """The encoder's lines, a level deeper, and the decoder's."""
    table = [
        Entry(line.theirs, tuple(Slot(f"encoder/{slot.path}", slot.index) for slot in line.ours), line.layout)
        for line in entries(cfg.encoder)
    ]
    table += [
        entry("decoder.embed_tokens.weight", "text_embedding", SAME),
        entry("decoder.embed_positions.weight", "positions", SAME),
        *norm("decoder.layer_norm", "norm"),
    ]
    for layer in range(cfg.decoder.num_layers):
        theirs = f"decoder.layers.{layer}"
        for name, published in (("attention", "self_attn"), ("cross", "encoder_attn")):
            table += attention(f"{theirs}.{published}", cfg.decoder, layer, f"layers/{name}")
            table += norm(f"{theirs}.{published}_layer_norm", f"layers/{name}_norm", layer)
        table += norm(f"{theirs}.final_layer_norm", "layers/mlp_norm", layer)
        table += mlp(theirs, layer)
    return table


WHISPER_WHOLE = Family(
    "whisper",
    read_whole_config,
    write_whole_config,
    whole_entries,
    Whisper,
    prefix="model.",
    unused=("proj_out.weight",),
)
WHISPER = Family(
    "whisper",
    read_config,
    write_config,
    entries,
    WhisperEncoder,
    prefix="model.",
    unused=("decoder.*", "proj_out.weight"),
)
