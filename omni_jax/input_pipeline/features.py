"""What the encoders take, from waveforms and pictures: streaming log-mel, patches, voice activity, CTC labels."""

from __future__ import annotations

import itertools
import string

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from omni_jax import dsp
from omni_jax.model_config import AudioEncoderConfig, VisionEncoderConfig
from omni_jax.types import FRAME_LISTEN_SAMPLES

# CTC classes: 0 is the blank.
CHARACTERS = string.ascii_lowercase + "' "
_LABELS = {character: label for label, character in enumerate(CHARACTERS, start=1)}

VOICED_BELOW_LOUDEST_DB = 35.0  # quieter frames of a clean clip are silence
LONGEST_GAP_FRAMES = 2  # a shorter silence inside an utterance counts as speech


def log_mel(wav: Float[np.ndarray, "N"], config: AudioEncoderConfig) -> Float[np.ndarray, "A8 M"]:
    """Log-mel of 16 kHz audio, with silence added up to a whole 80 ms slot: causal, or as Whisper was trained on it."""
    padded = np.pad(wav, (0, -len(wav) % FRAME_LISTEN_SAMPLES)).astype(np.float32)
    if config.tower is None:
        return dsp.log_mel_streaming(padded, config.num_mels)
    return dsp.log_mel_whisper(padded, config.num_mels)[: len(padded) // dsp.WHISPER_HOP]


def labels(text: str) -> tuple[int, ...]:
    """CTC labels of lower-case text: letters, apostrophe, space (1 to 28). A hyphen counts as a space."""
    return tuple(_LABELS[c] for c in text.lower().replace("-", " ") if c in _LABELS)


def from_labels(ids: Int[np.ndarray, "U"]) -> str:
    """The text of CTC labels; blanks are left out."""
    return "".join(CHARACTERS[i - 1] for i in ids if 0 < i <= len(CHARACTERS))


def patches(
    image: UInt8[np.ndarray, "H W 3"], config: VisionEncoderConfig
) -> tuple[Float[np.ndarray, "P X"], Int[np.ndarray, "P 2"]]:
    """Put on a white square of the encoder's size, cut into patches in [0, 1]; 2x2 blocks of patches are contiguous.

    Returns the patches, flattened as (row, column, RGB), and their (row, column) in the grid of patches.
    """
    size, patch = config.image_size, config.patch_size
    image = _square(image, size)
    blocks = size // (2 * patch)
    pixels = image.astype(np.float32) / 255.0
    grid = pixels.reshape(blocks, 2, patch, blocks, 2, patch, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    rows, columns = np.divmod(np.arange(4 * blocks * blocks).reshape(2 * blocks, 2 * blocks), 2 * blocks)
    positions = np.stack([rows, columns], axis=-1).reshape(blocks, 2, blocks, 2, 2).transpose(0, 2, 1, 3, 4)
    return grid.reshape(config.num_patches, 3 * patch * patch), positions.reshape(-1, 2).astype(np.int32)


def _square(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    side = max(height, width)
    canvas = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = image
    return np.asarray(Image.fromarray(canvas).resize((size, size), Image.Resampling.BILINEAR))


def voiced_samples(wav: Float[np.ndarray, "N"]) -> tuple[int, int]:
    """First and last + 1 voiced sample of a clean clip, to 10 ms."""
    hop = FRAME_LISTEN_SAMPLES // 8
    energy = np.mean(np.square(wav[: len(wav) // hop * hop].reshape(-1, hop)), axis=-1)
    voiced = np.flatnonzero(energy > energy.max(initial=0.0) * 10.0 ** (-VOICED_BELOW_LOUDEST_DB / 10.0))
    return (0, len(wav)) if not len(voiced) else (int(voiced[0]) * hop, int(voiced[-1] + 1) * hop)


def voiced_frames(wav: Float[np.ndarray, "N"]) -> Bool[np.ndarray, "F"]:
    """Voice activity of a clean clip by 80 ms frame, short gaps closed; the last frame may be incomplete."""
    padded = np.pad(wav, (0, -len(wav) % FRAME_LISTEN_SAMPLES)).reshape(-1, 8, FRAME_LISTEN_SAMPLES // 8)
    energy = np.mean(np.square(padded), axis=-1).max(axis=-1)
    voiced = energy > energy.max(initial=0.0) * 10.0 ** (-VOICED_BELOW_LOUDEST_DB / 10.0)
    on = np.flatnonzero(voiced)
    for before, after in itertools.pairwise(on):
        if after - before <= LONGEST_GAP_FRAMES + 1:
            voiced[before:after] = True
    return voiced
