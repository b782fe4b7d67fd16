"""Configuration of published encoders: what Whisper, CLIP and SigLIP are, whichever model they serve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TowerConfig:
    """The stack of blocks that the encoders share."""

    num_layers: int
    embed_dim: int
    num_heads: int
    mlp_dim: int
    activation: str = "gelu"  # gelu | gelu_tanh | quick_gelu
    norm_eps: float = 1e-5
    biases: tuple[str, ...] = ("query", "key", "value", "out")


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """Whisper's encoder (arXiv 2212.04356): 100 Hz log-mel in, 50 Hz out, 30 s seen both ways."""

    tower: TowerConfig
    num_mels: int = 80
    num_positions: int = 1500


@dataclass(frozen=True)
class WhisperConfig:
    """Whisper whole: the encoder, and a decoder over tokens."""

    encoder: WhisperEncoderConfig
    decoder: TowerConfig
    vocab_size: int
    num_text_positions: int = 448


@dataclass(frozen=True)
class VisionTowerConfig:
    """CLIP's (arXiv 2103.00020) and SigLIP's (arXiv 2303.15343, 2502.14786) vision encoders."""

    tower: TowerConfig
    patch_size: int
    grid: int  # learned positions a side; pictures of other sizes interpolate them
    clip: bool = False  # class token, norm before the blocks instead of behind, no patch bias
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # pixels in [0, 1] become (pixel - mean) / std
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class QwenAudioConfig:
    """Qwen3-Omni's audio tower (arXiv 2509.17765)."""

    tower: TowerConfig
    num_mels: int
    conv_dim: int
    out_dim: int  # the trunk's width
    chunk_frames: int = 100  # mel frames that are convolved together
    chunks_a_window: int = 8  # that attend to each other

    @property
    def outputs_a_chunk(self) -> int:
        return -(-self.chunk_frames // 8)


@dataclass(frozen=True)
class QwenVisionConfig:
    """Qwen3-Omni's vision tower."""

    tower: TowerConfig
    patch_size: int
    temporal_patch: int  # frames a patch
    grid: int  # learned positions a side
    out_dim: int  # the trunk's width
    deepstack_layers: tuple[int, ...]  # whose outputs go to the trunk, too
    rope_theta: float = 10_000.0
