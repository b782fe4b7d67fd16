"""What the encoders take, from waveforms and pictures: streaming log-mel, patches, voice activity, CTC labels."""

from __future__ import annotations

import itertools
import string

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from omni_jax import dsp
from omni_jax.model_config import AudioEncoderConfig, VisionEncoderConfig
from omni_jax.types import ABSENT, FRAME_LISTEN_SAMPLES

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
    """A picture cut into `config.num_patches` patches in [0, 1]; 2x2 blocks of patches are contiguous.

    In letterbox form it is put on a white square of the encoder's size. In native form (as in NaViT, arXiv 2307.06304)
    it keeps its size and aspect, made smaller only where it has more patches than there is room for; patches that it
    does not fill are zero, at the end, and their position is ABSENT.

    Returns the patches, flattened as (row, column, RGB), and their (row, column) in the grid of patches.
    """
    native = config.resize == "native"
    values, positions = _cut(_whole_blocks(image, config) if native else _square(image, config.image_size), config)
    empty = ((0, config.num_patches - len(values)), (0, 0))
    return (np.pad(values, empty), np.pad(positions, empty, constant_values=ABSENT)) if native else (values, positions)


def _cut(
    image: UInt8[np.ndarray, "H W 3"], config: VisionEncoderConfig
) -> tuple[Float[np.ndarray, "P X"], Int[np.ndarray, "P 2"]]:
    """Patches and positions of a picture of whole 2x2 blocks of patches."""
    patch = config.patch_size
    rows, columns = image.shape[0] // (2 * patch), image.shape[1] // (2 * patch)
    pixels = image.astype(np.float32) / 255.0
    grid = pixels.reshape(rows, 2, patch, columns, 2, patch, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    positions = np.indices((2 * rows, 2 * columns), np.int32).reshape(2, rows, 2, columns, 2).transpose(1, 3, 2, 4, 0)
    return grid.reshape(4 * rows * columns, 3 * patch * patch), positions.reshape(-1, 2)


def _square(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    side = max(height, width)
    return np.asarray(Image.fromarray(_on_white(image, side, side)).resize((size, size), Image.Resampling.BILINEAR))


def _whole_blocks(image: UInt8[np.ndarray, "H W 3"], config: VisionEncoderConfig) -> UInt8[np.ndarray, "H2 W2 3"]:
    """On white of whole 2x2 blocks of patches, as large as it is or as it can be."""
    height, width = image.shape[:2]
    block, room, longest = 2 * config.patch_size, config.num_patches // 4, config.longest_side // 2
    shapes = [(rows, min(room // rows, longest)) for rows in range(1, min(room, longest) + 1)]
    scale = max(min(rows * block / height, columns * block / width) for rows, columns in shapes)
    if scale < 1.0:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return _on_white(image, height + -height % block, width + -width % block)


def _on_white(image: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """In the middle of a larger white picture."""
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


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
