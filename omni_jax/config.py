"""Frozen configuration classes: jax-free, validated on construction, built from plain dicts.

A config file returns an `ml_collections.ConfigDict` with the same keys; `from_dict` turns it into these classes at
the entry point, and everything inside sees only them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omni_jax.codec_config import CodecConfig, DacConfig, SeanetConfig
from omni_jax.encoder_config import VisionTowerConfig, WhisperEncoderConfig
from omni_jax.errors import ConfigError, require
from omni_jax.recipe_config import RecipeConfig

if TYPE_CHECKING:
    import ml_collections

OPTIMIZERS = ("adamw", "adafactor", "muon")
MAX_VIRTUAL_SHARDS = 64


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
    tower: VisionTowerConfig | None = None  # a published encoder in place of ours; assembling sets it

    def __post_init__(self) -> None:
        require(
            self.image_size % (2 * self.patch_size) == 0,
            f"vision.image_size={self.image_size} must be a multiple of twice patch_size={self.patch_size}",
        )
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
    def num_patches(self) -> int:
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


@dataclass(frozen=True)
class MeshConfig:
    """Device mesh; one axis may be -1 and takes the devices that are left."""

    data: int = 1
    fsdp: int = -1
    expert: int = 1
    context: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class DataConfig:
    corpus: str = "data/corpus/picture_book"
    tokenizer: str = "data/corpus/picture_book/spm.model"
    sources: Mapping[str, str] = field(default_factory=dict)  # name -> FORMAT:PATH, in place of the corpus
    tasks: Mapping[str, Any] = field(default_factory=dict)  # task name -> share, or ((step, share), ...)
    share_of: str = "positions"  # positions | examples
    temperature: float = 0.0  # T > 0: shares times the task's number of examples ** (1 / T)
    row_positions: int = 256  # T
    rows: int = 8  # B, global
    audio_slots: int = 192  # a row's share of its pool
    patches: int = 128
    speech_positions: int = 128  # Ns
    max_segments: int = 12  # media segments a pool
    max_labels: int = 128  # CTC characters a segment; a longer transcript is left out
    rows_per_pool: int = 1
    written_media: bool = False  # the pools hold the words that are heard and seen, without sound and pixels
    workers: int = 1  # processes that read; 1 is a thread beside the training
    prefetch: int = 4
    max_bad_fraction: float = 0.001
    shards: int = 0  # of the stream; fixed for a run, a multiple of the processes that it may ever have; 0: by rule

    def __post_init__(self) -> None:
        require(
            self.shards >= 0 and self.rows % (self.virtual_shards * self.rows_per_pool) == 0,
            f"data.shards={self.shards}: want a number whose product with rows_per_pool={self.rows_per_pool} divides "
            f"data.rows={self.rows}, or 0",
        )
        require(
            self.share_of in ("positions", "examples"), f"data.share_of={self.share_of!r}: want positions or examples"
        )
        require(self.temperature >= 0, f"data.temperature={self.temperature}: want 0, or a temperature above it")

    @property
    def virtual_shards(self) -> int:
        """`shards`, or the largest power of two, at most 64, that divides the pools of a batch."""
        return self.shards or math.gcd(self.rows // self.rows_per_pool, MAX_VIRTUAL_SHARDS)


@dataclass(frozen=True)
class OptimizerConfig:
    name: str = "adamw"  # adamw | adafactor | muon
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    final_fraction: float = 0.1  # cosine decay ends at this share of learning_rate
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    spike_factor: float = 10.0  # a step whose gradient norm or loss jumps by so much is skipped; 0 skips only NaN, Inf

    def __post_init__(self) -> None:
        require(self.name in OPTIMIZERS, f"optimizer.name={self.name!r}: want one of {', '.join(OPTIMIZERS)}")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; each term is normalised by its own global weight sum."""

    text: float = 1.0
    text_z: float = 0.0  # squared log-partition of the text logits
    monologue: float = 1.0
    semantic: float = 1.0  # codebook 0
    acoustic: float = 1.0
    turn: float = 0.2
    ctc: float = 0.3
    phone: float = 1.0  # phones of heard speech, where the corpus has timings
    word: float = 1.0  # pieces of heard words, where the corpus has timings
    tag: float = 0.5  # names of pictures
    load_balance: float = 0.01
    router_z: float = 1e-3


@dataclass(frozen=True)
class CodecTrainingConfig:
    """Phases by step: autoencoder with noise on the latents, then quantised, then also adversarial."""

    segment_samples: int = 30_720  # 1.28 s
    quantiser_start_step: int = 400
    adversarial_start_step: int = 10**9  # a discriminator costs 2-3 x a step
    adversarial_samples: int = 11_520  # the discriminators hear a crop
    discriminator_dim: int = 32
    discriminator_learning_rate: float = 1e-3
    latent_noise: float = 0.2  # share of each latent's standard deviation
    kmeans_batches: int = 48  # their latents give the first codebooks
    mel_weight: float = 15.0
    stft_weight: float = 1.0
    adversarial_share: float = 0.3  # norm of the adversarial gradient against the reconstruction's
    feature_weight: float = 2.0  # against 1 for the generator's hinge loss
    commit_weight: float = 0.25
    phone_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("segment_samples", "adversarial_samples"):
            value = getattr(self, name)
            require(
                value > 0 and value % 1920 == 0,
                f"codec_training.{name}={value}: want a multiple of 1920, one 80 ms frame",
            )
        require(
            self.adversarial_samples < self.segment_samples,
            f"codec_training.adversarial_samples={self.adversarial_samples} must be shorter than "
            f"segment_samples={self.segment_samples}",
        )


@dataclass(frozen=True)
class TrainingConfig:
    steps: int = 100
    log_every: int = 10
    checkpoint_every: int = 200
    microbatches: int = 1  # parts of a batch whose gradients are summed before the update
    keep_checkpoints: int = 2
    trainable: tuple[str, ...] = ("",)  # prefixes of parameter paths; "" is everything
    init_from: str = ""  # starting parameters: a workdir, or parts as PATH_PATTERN=WORKDIR,...
    codec_from: str = ""  # the codec workdir (stages that use speech codes)
    codes_dropout: float = 0.0  # share of rows whose own past codes are hidden or another row's
    tensorboard: bool = True  # metrics.jsonl is always written


@dataclass(frozen=True)
class Config:
    stage: str = "pretrain"  # codec | pretrain | perceive | align | duplex
    size: str = "tiny"
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    codec: CodecConfig | SeanetConfig | DacConfig = field(default_factory=CodecConfig)
    data: DataConfig = field(default_factory=DataConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    codec_training: CodecTrainingConfig = field(default_factory=CodecTrainingConfig)
    recipe: RecipeConfig | None = None  # stage codec trains this in place of `codec`
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        stages = ("codec", "pretrain", "perceive", "align", "duplex")
        require(self.stage in stages, f"stage={self.stage!r}: want one of {', '.join(stages)}")
        require(
            self.recipe is None or self.stage == "codec", f"recipe: stage {self.stage} has none: want stage='codec'"
        )
        require(
            (self.model.num_codebooks, self.model.codebook_size)
            == (self.codec.num_codebooks, self.codec.codebook_size),
            f"model has {self.model.num_codebooks} x {self.model.codebook_size} codes but the codec "
            f"{self.codec.num_codebooks} x {self.codec.codebook_size}: set model.num_codebooks and model.codebook_size "
            "to the codec's",
        )
        require(
            self.stage != "duplex" or self.model.audio.tower is None,
            "stage duplex with a published audio encoder, which hears clips whole and both ways: assemble for it "
            "without --audio, or stay with stage align",
        )

    @property
    def generator(self) -> Any:
        """What stage `codec` trains: the config of a codec or of a vocoder."""
        return self.recipe.generator if self.recipe else self.codec


@dataclass(frozen=True)
class EvalConfig:
    """How much an evaluation runs; the examples always come from the test split."""

    seed: int = 0
    rows: int = 16  # calls that run together
    call_frames: int = 125  # length of a call, 80 ms each
    pictures: int = 64  # "what is this?" with a held-out picture
    facts: int = 64
    repeats: int = 32
    interruptions: int = 32
    backchannels: int = 32  # backchannels, noises and side talk together
    pauses: int = 32
    turn_dialogues: int = 32  # frame states in noise
    spoken_replies: int = 32  # replies that the recogniser hears
    ceiling_replies: int = 16  # target recordings through the codec that it hears
    timed_calls: int = 3  # one call at a time, for the computation of a frame
    text_batches: int = 4
    text_temperature: float = 0.0  # 0 is greedy
    text_top_k: int = 25
    audio_temperature: float = 0.7
    audio_top_k: int = 50
    recogniser: str = ""  # directory of a Whisper that hears the replies; "" is the packaged one, where installed

    def __post_init__(self) -> None:
        for name in ("rows", "call_frames", "timed_calls", "text_batches"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)}: want at least 1")


def from_dict(cls: type, values: Mapping[str, Any], path: str = "") -> Any:
    """Builds the config class `cls` from nested plain values; an unknown key is an error with a suggestion."""
    hints = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        close = difflib.get_close_matches(unknown[0], hints, n=1)
        suggestion = f" Did you mean {path}{close[0]}?" if close else f" Known: {', '.join(sorted(hints))}."
        raise ConfigError(f"unknown config key {path}{unknown[0]}.{suggestion}")
    return cls(**{key: _convert(hints[key], value, f"{path}{key}") for key, value in values.items()})


def resolve(values: ml_collections.ConfigDict) -> Config:
    """A config file's `ConfigDict` as the validated, frozen `Config`. Raises ConfigError.

    A stage file holds the model's or the codec's side of the code shape; the other side takes it from there.
    """
    groups = values.to_dict()
    known = groups.get("model") or groups.get("codec") or {}
    shape = {name: known[name] for name in ("num_codebooks", "codebook_size") if name in known}
    return from_dict(Config, {"model": shape, "codec": shape} | groups)


def _convert(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, types.UnionType):
        return None if value is None else _convert(_class_of(typing.get_args(hint), value), value, path)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}={value!r}: want a group of keys")
        return from_dict(hint, value, path + ".")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}={value!r}: want a list of values")
        return _frozen(value)
    if origin is not None and issubclass(origin, Mapping):
        return types.MappingProxyType({name: _frozen(item) for name, item in value.items()})
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path}={value!r}: want {hint.__name__}, got {type(value).__name__}")
    return value


def _frozen(value: Any) -> Any:
    """JSON has lists where a config has tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _class_of(choices: tuple[type, ...], value: Any) -> type:
    """The first config class that has all the keys of `value`, else the first."""
    keys = set(value) if isinstance(value, Mapping) else set()
    classes = [choice for choice in choices if choice is not types.NoneType]
    fitting = (cls for cls in classes if keys <= {item.name for item in dataclasses.fields(cls)})
    return next(fitting, classes[0])


def to_dict(config: Any) -> dict[str, Any]:
    """The inverse of `from_dict`, JSON-friendly. A group that is None is left out."""
    out: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        out[item.name] = value
    return out


def load_model_config(path: str) -> ModelConfig:
    """A model.json, as imports and assemblies write it. Raises ConfigError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as a model's configuration ({error})") from None
    return from_dict(ModelConfig, values)
