"""Frozen configuration classes: jax-free, validated on construction, built from plain dicts.

A config file returns an `ml_collections.ConfigDict` with the same keys; `from_dict` turns it into these classes at
the entry point, and everything inside sees only them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from omni_jax.codec_config import CodecConfig, DacConfig, SeanetConfig
from omni_jax.config_dict import from_dict
from omni_jax.errors import require
from omni_jax.model_config import ModelConfig
from omni_jax.recipe_config import RecipeConfig

if TYPE_CHECKING:
    import ml_collections

OPTIMIZERS = ("adamw", "adafactor", "muon")
MAX_VIRTUAL_SHARDS = 64


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
    log_mel: str = "host"  # host | step: where it is made of the sound
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
        require(self.log_mel in ("host", "step"), f"data.log_mel={self.log_mel!r}: want host or step")
        require(self.temperature >= 0, f"data.temperature={self.temperature}: want 0, or a temperature above it")

    def for_pictures(self, num_patches: int) -> DataConfig:
        """With room for patches rounded up to whole pictures of so many."""
        return replace(self, patches=self.patches + -self.patches % num_patches)

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
    readings: bool = False  # hears the corpus' readings, in many more voices, besides its speech
    speed_range: float = 0.0  # half of the crops play up to this much (log) faster or slower, as other speakers
    quantiser_start_step: int = 400
    adversarial_start_step: int = 10**9  # a discriminator costs 2-3 x a step
    adversarial_samples: int = 11_520  # the discriminators hear a crop
    discriminator_dim: int = 32
    discriminator_learning_rate: float = 1e-3
    latent_noise: float = 0.2  # share of each latent's standard deviation
    kmeans_batches: int = 48  # their latents give the first codebooks
    mel_weight: float = 15.0
    stft_weight: float = 1.0
    loudness_weight: float = 0.0  # differences as PESQ reckons them
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
    trainable: tuple[str, ...] = ("",)  # prefixes of parameter paths; "" is everything; PREFIX@STEP: from a step on
    init_from: str = ""  # starting parameters: a workdir, or (but for a codec) parts as PATH_PATTERN=WORKDIR,...
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
        patches, of_picture = self.data.patches * self.data.rows_per_pool, self.model.vision.num_patches
        require(
            self.stage == "codec" or patches % of_picture == 0,
            f"data.patches={self.data.patches}: want a multiple of {of_picture}, whole pictures (vision.image_size and "
            f"patch_size), as {-(-patches // of_picture) * of_picture}",
        )
        require(
            self.data.log_mel == "host" or self.model.audio.tower is None,
            "data.log_mel='step' makes the causal log-mel, which a published audio encoder does not take: want 'host'",
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


def resolve(values: ml_collections.ConfigDict) -> Config:
    """A config file's `ConfigDict` as the validated, frozen `Config`. Raises ConfigError.

    A stage file holds the model's or the codec's side of the code shape; the other side takes it from there.
    """
    groups = values.to_dict()
    known = groups.get("model") or groups.get("codec") or {}
    shape = {name: known[name] for name in ("num_codebooks", "codebook_size") if name in known}
    return from_dict(Config, {"model": shape, "codec": shape} | groups)
