"""Configuration of a published recipe: which codec or vocoder is trained, by which losses and discriminators."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni_jax.codec_config import DacConfig, DiscriminatorConfig, HifiGanConfig, SeanetConfig, VocosConfig
from omni_jax.errors import require

ADVERSARIES = ("hinge", "clamped_hinge", "least_squares")
PHONE_RATE_HZ = 50


@dataclass(frozen=True)
class LossWeights:
    """Of the generator's losses; 0 leaves one out. The first five hear the waveform and may be balanced."""

    time: float = 0.0  # L1 between samples
    mel: float = 0.0  # L1 between log-mel spectra, sum over `mel_windows`
    multi_scale: float = 0.0  # EnCodec's: L1 of mels and L2 of their logs, mean over `scale_windows`
    adversarial: float = 1.0
    feature: float = 0.0  # L1 between the discriminators' features
    commit: float = 0.0
    codebook: float = 0.0  # DAC's codebooks follow gradients; EnCodec's and Mimi's are moving averages
    phone: float = 0.0  # cross-entropy of the phones that the semantic codebook names
    distill: float = 0.0  # 1 - cosine between what the semantic codebook says and what `teacher` hears


@dataclass(frozen=True)
class RecipeConfig:
    """Exactly one of `seanet`, `dac`, `hifigan` and `vocos` is given: it is the generator."""

    seanet: SeanetConfig | None = None
    dac: DacConfig | None = None
    hifigan: HifiGanConfig | None = None
    vocos: VocosConfig | None = None
    segment_samples: int = 24_000
    weights: LossWeights = field(default_factory=LossWeights)
    balanced: bool = False  # each waveform loss has its share of the gradient, whatever its scale
    mel_windows: tuple[int, ...] = ()
    mel_bands: tuple[int, ...] = ()  # of each window
    natural_log: bool = False  # of the mel loss, as HiFi-GAN and Vocos; DAC's is log10
    scale_windows: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    discriminator: DiscriminatorConfig = field(default_factory=lambda: DiscriminatorConfig(periods=(2, 3, 5, 7, 11)))
    adversarial: str = "hinge"  # hinge: AudioCraft | clamped_hinge: Vocos | least_squares: HiFi-GAN, DAC
    spectrogram_weight: float = 1.0  # of the discriminators on spectrograms, beside 1 for those on waveforms
    adversarial_start_step: int = 0
    discriminator_learning_rate: float = 3e-4
    discriminator_clip_norm: float = 1e3
    learning_rate_decay: float = 1.0  # factor a step, of both sides; 0 is a cosine to optimizer.final_fraction
    quantizer_dropout: float = 0.0  # share of rows that train with fewer codebooks
    unquantized: float = 0.0  # share of rows whose latents reach the decoder as they are (Mimi)
    kmeans_batches: int = 16  # their latents give the first codebooks
    codebook_decay: float = 0.99
    average_decay: float = 0.99  # of the generator's moving average, which is what is saved
    num_phones: int = 64
    teacher: str = ""  # directory of a published Whisper, whose encoder is distilled

    def __post_init__(self) -> None:
        given = [cfg for cfg in (self.seanet, self.dac, self.hifigan, self.vocos) if cfg is not None]
        require(len(given) == 1, f"recipe: has {len(given)} generators: want one of seanet, dac, hifigan and vocos")
        require(
            self.adversarial in ADVERSARIES,
            f"recipe.adversarial={self.adversarial!r}: want one of {', '.join(ADVERSARIES)}",
        )
        require(
            len(self.mel_windows) == len(self.mel_bands),
            f"recipe.mel_bands={self.mel_bands}: want one for each of mel_windows={self.mel_windows}",
        )
        require(
            not (self.balanced and self.adversarial_start_step),
            f"recipe.adversarial_start_step={self.adversarial_start_step}: the balancer's averages would start at the "
            "zeros before it: want 0, or balanced=False",
        )
        self._check_segment()
        self._check_vocoder()
        self._check_semantic()

    def _check_segment(self) -> None:
        hop, windows = self.generator.hop_samples, (*self.mel_windows, *self.discriminator.windows)
        windows += self.scale_windows if self.weights.multi_scale else ()
        shortest = max(windows, default=0)
        require(
            self.segment_samples % hop == 0 and self.segment_samples > shortest,
            f"recipe.segment_samples={self.segment_samples}: want a multiple of the generator's hop of {hop} samples "
            f"above the longest window, {shortest}",
        )

    def _check_vocoder(self) -> None:
        if self.is_codec:
            return
        require(
            self.generator.num_codebooks == 0,
            f"recipe: the vocoder has num_codebooks={self.generator.num_codebooks}, but recipes train it on mel frames:"
            " want 0",
        )
        require(
            self.vocos is None or self.vocos.window == 4 * self.vocos.hop_samples,
            "recipe.vocos.window: want four times hop_samples, the overlap of its mel frames",
        )

    def _check_semantic(self) -> None:
        require(
            bool(self.weights.distill) == bool(self.teacher),
            f"recipe.teacher={self.teacher!r}: want the directory of a published Whisper where weights.distill="
            f"{self.weights.distill} is not 0, and only there",
        )
        frame, semantic = self.sample_rate_hz // PHONE_RATE_HZ, self.seanet.semantic_codebooks if self.seanet else 0
        for name in ("phone", "distill"):
            require(
                not getattr(self.weights, name) or (semantic > 0 and self.generator.hop_samples % frame == 0),
                f"recipe.weights.{name}={getattr(self.weights, name)}: want a seanet with semantic_codebooks whose hop "
                f"is a multiple of {frame} samples (20 ms)",
            )
        require(
            not self.teacher or (self.sample_rate_hz % 8_000 == 0 and self.sample_rate_hz >= 16_000),
            f"recipe.teacher: hears 16 kHz or a multiple of 8 kHz above it, not {self.sample_rate_hz} Hz",
        )

    @property
    def generator(self) -> SeanetConfig | DacConfig | HifiGanConfig | VocosConfig:
        return self.seanet or self.dac or self.hifigan or self.vocos

    @property
    def is_codec(self) -> bool:
        return self.seanet is not None or self.dac is not None

    @property
    def sample_rate_hz(self) -> int:
        return self.generator.sample_rate_hz
