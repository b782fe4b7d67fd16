"""Configuration of the omni model: its trunk, encoders and depth transformer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from omni_jax.config_dict import from_dict
from omni_jax.encoder_config import VisionTowerConfig, WhisperEncoderConfig
from omni_jax.errors import ConfigError, require


@dataclass(frozen=True)
class TrunkVariant:
    """How a published trunk differs from ours. Importing sets it; stage files leave it out."""

    rotary_dim: int = 0  # the first so many of head_dim turn (GPT-J); 0 = all
    rope_stretch: tuple[float, ...] = ()  # Llama 3.1: factor, low, high, original positions; () = none
    learned_positions: int = 0  # > 0: so many learned positions instead of rotary ones (GPT-2)
    norm: str = "rms"  # rms | layer, which has a mean and a bias
    attention_biases: tuple[str, ...] = ()  # of query, key, value, out
    mlp: str = "swiglu"  # dense layers: swiglu | gelu_tanh, two layers with biases
    parallel_block: bool = False  # attention and feed-forward side by side on one norm (GPT-J)
    text_head_bias: bool = False

    def __post_init__(self) -> None:
        require(self.norm in ("rms", "layer"), f"transformer.variant.norm={self.norm!r}: want rms or layer")
        require(self.mlp in ("swiglu", "gelu_tanh"), f"transformer.variant.mlp={self.mlp!r}: want swiglu or gelu_tanh")
        known = ("query", "key", "value", "out")
        unknown = [name for name in self.attention_biases if name not in known]
        require(not unknown, f"transformer.variant.attention_biases has {unknown}: want some of {', '.join(known)}")
        require(
            len(self.rope_stretch) in (0, 4),
            f"transformer.variant.rope_stretch={self.rope_stretch}: want factor, low, high and original positions",
        )


@dataclass(frozen=True)
class TransformerConfig:
    """The shared trunk. `num_experts = 0` makes every layer dense."""

    num_layers: int = 4
    embed_dim: int = 192
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 48
    mlp_dim: int = 512  # dense layers
    num_dense_layers: int = 1  # the first layers stay dense
    num_experts: int = 4
    experts_per_token: int = 2
    expert_dim: int = 192
    num_shared_experts: int = 0  # run on every position, beside the chosen ones
    moe_dispatch: str = "dense"  # dense: every expert on every position, for a few experts on a CPU | sorted
    router: str = "softmax"  # softmax | sigmoid
    router_groups: tuple[int, int] = (1, 1)  # experts in so many groups; a position chooses from its best so many
    router_bias_rate: float = 0.0  # how fast a bias evens out the load; 0 leaves that to the balance loss
    expert_buffer: float = 0.0  # rows a device takes in at an exchange, as a multiple of the even share; 0 drops none
    rope_theta: float = 10_000.0
    rope_sections: tuple[int, int, int] = (12, 6, 6)  # rotary pairs for time, height, width; sums to head_dim / 2
    qk_norm: bool = True
    norm_eps: float = 1e-6
    remat: str = "none"  # none | minimal | full | offload: what the backward pass computes again
    scan_layers: bool = False  # True for deep models: one compiled body; unrolled runs faster on a CPU
    variant: TrunkVariant = field(default_factory=TrunkVariant)

    def __post_init__(self) -> None:
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"transformer.num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}",
        )
        self._check_positions()
        self._check_experts()
        for name, value, wanted in (
            ("remat", self.remat, ("none", "minimal", "full", "offload")),
            ("router", self.router, ("softmax", "sigmoid")),
            ("moe_dispatch", self.moe_dispatch, ("dense", "sorted")),
        ):
            require(value in wanted, f"transformer.{name}={value!r}: want {', '.join(wanted[:-1])} or {wanted[-1]}")

    def _check_experts(self) -> None:
        require(
            self.num_experts == 0 or self.num_dense_layers < self.num_layers,
            f"transformer.num_dense_layers={self.num_dense_layers} leaves none of num_layers={self.num_layers} to the "
            "experts: lower it, or set num_experts=0",
        )
        require(
            self.num_experts == 0 or self.experts_per_token <= self.num_experts,
            f"transformer.experts_per_token={self.experts_per_token} exceeds num_experts={self.num_experts}",
        )
        groups, chosen = self.router_groups
        require(
            1 <= chosen <= groups and self.num_experts % groups == 0,
            f"transformer.router_groups={self.router_groups}: want (groups, groups a position may use), the first a "
            f"divisor of num_experts={self.num_experts}, the second at most the first",
        )
        require(
            self.num_experts == 0 or self.num_experts * chosen >= self.experts_per_token * groups,
            f"transformer.router_groups={self.router_groups} leaves a position {self.num_experts * chosen // groups} "
            f"experts to choose from, fewer than experts_per_token={self.experts_per_token}: raise the second number",
        )
        require(
            self.expert_buffer == 0 or self.expert_buffer >= 1,
            f"transformer.expert_buffer={self.expert_buffer}: want 0 (drops nothing) or at least 1",
        )

    def _check_positions(self) -> None:
        variant = self.variant
        rotary_dim = variant.rotary_dim or self.head_dim
        require(
            bool(variant.learned_positions) or sum(self.rope_sections) * 2 == rotary_dim <= self.head_dim,
            f"transformer.rope_sections={self.rope_sections} must sum to "
            f"{'rotary_dim' if variant.rotary_dim else 'head_dim'}/2={rotary_dim // 2}, at most half of head_dim",
        )
        _, height, width = self.rope_sections
        require(
            3 * max(height, width) <= sum(self.rope_sections),
            f"transformer.rope_sections={self.rope_sections}: height and width take every third pair, so each may "
            f"have at most {sum(self.rope_sections) // 3}",
        )


@dataclass(frozen=True)
class AudioEncoderConfig:
    """Causal Conformer on right-aligned log-mel: 100 Hz in, 12.5 Hz out, no look-ahead beyond the 80 ms slot."""

    num_mels: int = 80
    num_layers: int = 3
    embed_dim: int = 128
    num_heads: int = 4
    mlp_dim: int = 192
    conv_kernel: int = 7
    left_context_slots: int = 50  # attention sees 4 s
    ctc_subframes: int = 4  # CTC runs at 50 Hz
    ctc_vocab: int = 32  # blank + characters
    num_phones: int = 64  # classes of the phone head, at 50 Hz
    tower: WhisperEncoderConfig | None = None  # a published encoder in place of ours; assembling sets it

    def __post_init__(self) -> None:
        require(
            self.tower is None or self.tower.num_mels == self.num_mels,
            f"audio.num_mels={self.num_mels}: want the published encoder's, {self.tower and self.tower.num_mels}",
        )

    @property
    def slot_dim(self) -> int:
        """Width of an encoded 80 ms slot: four 50 Hz outputs of Whisper side by side."""
        return self.embed_dim if self.tower is None else 4 * self.tower.tower.embed_dim


@dataclass(frozen=True)
class VisionEncoderConfig:
    image_size: int = 64
    patch_size: int = 8
    num_layers: int = 2
    embed_dim: int = 96
    num_heads: int = 4
    mlp_dim: int = 192
    resize: str = "letterbox"  # letterbox: on a square of image_size; native: as it is, if it fits num_patches
    tower: VisionTowerConfig | None = None  # a published encoder in place of ours; assembling sets it

    def __post_init__(self) -> None:
        require(
            self.image_size % (2 * self.patch_size) == 0,
            f"vision.image_size={self.image_size} must be a multiple of twice patch_size={self.patch_size}",
        )
        require(self.resize in ("letterbox", "native"), f"vision.resize={self.resize!r}: want letterbox or native")
        require(
            self.tower is None or self.tower.patch_size == self.patch_size,
            f"vision.patch_size={self.patch_size}: want the published encoder's, "
            f"{self.tower and self.tower.patch_size}",
        )

    @property
    def patch_dim(self) -> int:
        """Width of an encoded patch."""
        return self.embed_dim if self.tower is None else self.tower.tower.embed_dim

    @property
    def longest_side(self) -> int:
        """Patches of the longest side that a picture may have: in native form it may be four times as long as wide."""
        return self.image_size // self.patch_size * (2 if self.resize == "native" else 1)

    @property
    def num_patches(self) -> int:
        """Of a picture; in native form what it is given room for."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class DepthConfig:
    """The depth transformer over codebooks."""

    num_layers: int = 1
    embed_dim: int = 128
    num_heads: int = 4
    mlp_dim: int = 256


class LowRank(NamedTuple):
    """A low-rank update of the matrices whose path matches (`nn/low_rank.py`)."""

    pattern: str
    rank: int
    magnitude: bool  # DoRA


def parse_lora(text: str) -> tuple[LowRank, ...]:
    """`PATTERN=RANK,PATTERN=doraRANK`. Raises ConfigError."""
    updates = []
    for item in filter(None, text.split(",")):
        pattern, _, rank = (part.strip() for part in item.partition("="))
        number = rank.removeprefix("dora")
        require(
            bool(pattern) and number.isdecimal() and int(number) > 0,
            f"model.lora={text!r}: want PATTERN=RANK, or PATTERN=doraRANK, separated by commas, as in */query=8",
        )
        updates.append(LowRank(pattern, int(number), rank != number))
    return tuple(updates)


@dataclass(frozen=True)
class ModelConfig:
    """The omni model. `vocab_size` and the codebook shape must match its tokenizer and its codec."""

    vocab_size: int = 768
    num_codebooks: int = 8
    codebook_size: int = 512
    acoustic_delay: int = 1
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    vision: VisionEncoderConfig = field(default_factory=VisionEncoderConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    text_only: bool = False  # no encoders, no speech: a language model
    compute_dtype: str = "float32"  # bfloat16 on accelerators
    text_posteriors: bool = (
        False  # what the encoders make out is named in text pieces and read as text: models/namer.py
    )
    tie_text_head: bool = False  # text logits from the text embedding instead of a head of their own
    inner_monologue: bool = True  # off only for the ablation: text targets on the frame grid become control tokens
    lora: str = ""  # low-rank updates of frozen matrices, PATTERN=RANK,...; PATTERN=doraRANK learns magnitudes too

    def __post_init__(self) -> None:
        parse_lora(self.lora)


def load_model_config(path: str) -> ModelConfig:
    """A model.json, as imports and assemblies write it. Raises ConfigError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as a model's configuration ({error})") from None
    return from_dict(ModelConfig, values)
