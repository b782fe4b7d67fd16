"""Configuration of the codecs and vocoders: our own, and the published families with their shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omni_jax.errors import require


@dataclass(frozen=True)
class CodecConfig:
    """Speech codec of the `spectral` family: 24 kHz, 12.5 Hz, residual vector quantisation, causal."""

    num_codebooks: int = 8
    codebook_size: int = 512
    latent_dim: int = 32
    encoder_dim: int = 128
    encoder_layers: tuple[int, int] = (2, 2)  # ConvNeXt blocks at 50 Hz, at 12.5 Hz
    decoder_dim: int = 192
    decoder_layers: tuple[int, int, int] = (2, 3, 1)  # at 12.5 Hz, at 50 Hz, at the rate of the ISTFT frames
    mlp_ratio: int = 3
    stft_window: int = 960  # encoder analysis, samples at 24 kHz
    stft_hop: int = 240
    istft_window: int = 720  # decoder synthesis; window - hop samples of latency
    istft_hop: int = 240
    conv_kernel: int = 7
    num_phones: int = 64  # targets of the semantic codebook's auxiliary classifier
    ema_decay: float = 0.99
    fsq_levels: tuple[int, ...] = ()  # of each dimension that a code has to itself; empty is residual quantisation

    def __post_init__(self) -> None:
        levels = self.fsq_levels
        shape = (math.prod(levels), self.num_codebooks * len(levels))
        require(
            not levels or (shape == (self.codebook_size, self.latent_dim) and min(levels) > 1),
            f"codec.fsq_levels={levels}: want numbers above 1, and with them codebook_size={shape[0]} and "
            f"latent_dim={shape[1]}, not {self.codebook_size} and {self.latent_dim}",
        )
        for name in ("stft_hop", "istft_hop"):
            hop = getattr(self, name)
            require(hop > 0 and 480 % hop == 0, f"codec.{name}={hop}: want a divisor of 480 (20 ms), such as 240")
        require(
            self.istft_window % self.istft_hop == 0 and self.istft_window >= 3 * self.istft_hop,
            f"codec.istft_window={self.istft_window}: want a multiple, at least 3, of istft_hop={self.istft_hop}",
        )
        require(
            self.istft_window - self.istft_hop <= 480,
            f"codec.istft_window={self.istft_window}: window - hop is the decoder's latency and may be 480 samples "
            f"(20 ms); with istft_hop={self.istft_hop} want at most {480 + self.istft_hop}",
        )
        require(
            self.stft_window >= self.stft_hop,
            f"codec.stft_window={self.stft_window} is shorter than stft_hop={self.stft_hop} and would skip samples",
        )

    @property
    def hop_samples(self) -> int:
        return 1_920  # 80 ms

    @property
    def sample_rate_hz(self) -> int:
        return 24_000


@dataclass(frozen=True)
class SeanetConfig:
    """EnCodec (arXiv:2210.13438) and Mimi (arXiv:2410.00037): the defaults are EnCodec at 24 kHz."""

    sample_rate_hz: int = 24_000
    num_filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)  # the decoder's order
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    num_residual_layers: int = 1
    dilation_growth: int = 2
    compress: int = 2  # width of a residual block's inside
    conv_shortcut: bool = True
    pad_mode: str = "reflect"  # `constant` where streaming must equal offline
    lstm_layers: int = 2
    latent_dim: int = 128
    transformer_layers: int = 0  # of encoder and decoder each, at the convolutions' frame rate
    num_heads: int = 8
    mlp_dim: int = 2048
    context_frames: int = 250  # of the attention
    layer_scale: float = 0.01
    resample: int = 1  # frames of the convolutions a code
    num_codebooks: int = 32
    codebook_size: int = 1024
    codebook_dim: int = 128  # another width than latent_dim is reached by projections
    semantic_codebooks: int = 0  # the first ones, which have a quantiser of their own

    def __post_init__(self) -> None:
        modes = ("constant", "reflect", "replicate")
        require(self.pad_mode in modes, f"seanet.pad_mode={self.pad_mode!r}: want one of {', '.join(modes)}")
        require(
            0 <= self.semantic_codebooks < self.num_codebooks,
            f"seanet.semantic_codebooks={self.semantic_codebooks}: want fewer than num_codebooks={self.num_codebooks}",
        )
        require(
            self.latent_dim % self.num_heads == 0,
            f"seanet.latent_dim={self.latent_dim}: want a multiple of num_heads={self.num_heads}",
        )

    @property
    def hop_samples(self) -> int:
        return math.prod(self.ratios) * self.resample


ENCODEC_24KHZ = SeanetConfig()
MIMI = SeanetConfig(
    num_filters=64,
    ratios=(8, 6, 5, 4),
    last_kernel_size=3,
    conv_shortcut=False,
    pad_mode="constant",
    lstm_layers=0,
    latent_dim=512,
    transformer_layers=8,
    resample=2,
    num_codebooks=32,
    codebook_size=2048,
    codebook_dim=256,
    semantic_codebooks=1,
)


@dataclass(frozen=True)
class DacConfig:
    """The Descript audio codec (arXiv:2306.06546): Snake, centred convolutions, 8-dimensional cosine codes."""

    sample_rate_hz: int = 44_100
    encoder_dim: int = 64
    strides: tuple[int, ...] = (2, 4, 8, 8)  # the encoder's order
    decoder_dim: int = 1536
    num_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    quantizer_dropout: float = 0.5  # share of rows that train with fewer codebooks

    @property
    def hop_samples(self) -> int:
        return math.prod(self.strides)

    @property
    def latent_dim(self) -> int:
        return self.encoder_dim * 2 ** len(self.strides)


DAC_44KHZ = DacConfig()
DAC_24KHZ = DacConfig(sample_rate_hz=24_000, strides=(2, 4, 5, 8), num_codebooks=32)


@dataclass(frozen=True)
class HifiGanConfig:
    """HiFi-GAN (arXiv:2010.05646), V1 by default. With `num_codebooks` it speaks codes instead of mel frames."""

    sample_rate_hz: int = 22_050
    input_dim: int = 80  # mel bands, or the width of the code embeddings
    initial_dim: int = 512
    rates: tuple[int, ...] = (8, 8, 2, 2)
    kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    slope: float = 0.1  # of the leaky ReLUs, but the last
    normalize: bool = False  # mel bands by a mean and a scale that lie with the weights, as SpeechT5's vocoder does
    snake: bool = False  # BigVGAN's periodic activation in place of the leaky ReLUs
    num_codebooks: int = 0
    codebook_size: int = 0

    def __post_init__(self) -> None:
        require(
            len(self.rates) == len(self.kernel_sizes),
            f"hifigan.kernel_sizes={self.kernel_sizes}: want one for each of rates={self.rates}",
        )
        require(
            len(self.resblock_kernel_sizes) == len(self.resblock_dilations),
            f"hifigan.resblock_dilations={self.resblock_dilations}: want a group for each of "
            f"resblock_kernel_sizes={self.resblock_kernel_sizes}",
        )
        require(
            all((k - r) % 2 == 0 and k >= r for k, r in zip(self.kernel_sizes, self.rates)),
            f"hifigan.kernel_sizes={self.kernel_sizes}: want each as even or odd as its rate, and not below it",
        )

    @property
    def hop_samples(self) -> int:
        return math.prod(self.rates)


HIFIGAN_V1 = HifiGanConfig()
HIFIGAN_V2 = HifiGanConfig(initial_dim=128)
HIFIGAN_UNITS = HifiGanConfig(
    sample_rate_hz=24_000,
    input_dim=256,
    rates=(8, 8, 6, 5),
    kernel_sizes=(16, 16, 12, 11),
    num_codebooks=8,
    codebook_size=2048,
)


@dataclass(frozen=True)
class VocosConfig:
    """Vocos (arXiv:2306.00814). Causal blocks, and a window that ends with its frame, make it a streaming vocoder."""

    sample_rate_hz: int = 24_000
    input_dim: int = 100  # mel bands, or the width of the code embeddings
    dim: int = 512
    hidden_dim: int = 1536
    num_layers: int = 8
    kernel_size: int = 7
    window: int = 1024
    hop_samples: int = 256
    num_codebooks: int = 0
    codebook_size: int = 0

    def __post_init__(self) -> None:
        require(
            self.window % self.hop_samples == 0 and self.window >= 3 * self.hop_samples,
            f"vocos.window={self.window}: want a multiple, at least 3, of hop_samples={self.hop_samples}",
        )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which discriminators judge, and how wide they are."""

    dim: int = 32
    periods: tuple[int, ...] = ()  # HiFi-GAN: 2, 3, 5, 7, 11
    scales: int = 0  # HiFi-GAN: 3
    stft_windows: tuple[int, ...] = ()  # AudioCraft: 1024, 2048, 512, 256, 128
    band_windows: tuple[int, ...] = ()  # DAC: 2048, 1024, 512

    def __post_init__(self) -> None:
        require(
            bool(self.periods or self.scales or self.stft_windows or self.band_windows),
            "discriminator: has no part: name periods, scales, stft_windows or band_windows",
        )

    @property
    def windows(self) -> tuple[int, ...]:
        return (*self.stft_windows, *self.band_windows)
