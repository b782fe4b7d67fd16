"""Sound in a batch in place of log-mel, which the step then makes (`data.log_mel` is "step").

A frame of 10 ms is its 160 samples at 16 kHz and, behind them, how its log-mel varies: augmentation is drawn on the
host, so that the stream stays a pure function of its seed. Like `dsp`, for numpy and jax.numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from omni_jax import dsp
from omni_jax.dsp import Array
from omni_jax.types import MEL_FRAMES_PER_SLOT, Media

HOP = dsp.WHISPER_HOP
VALUES = HOP + 5  # of a frame: samples; warp, tilt, first and last + 1 masked bin, whether the frame is masked


class Variation(NamedTuple):
    """How the log-mel of an example differs from what was heard: another speaker, another microphone, SpecAugment."""

    warp: float = 1.0  # bin b is read at b * warp
    tilt: float = 0.0  # log-mel units from the lowest bin to the highest
    band: tuple[int, int] = (0, 0)  # masked bins, from and to
    times: tuple[tuple[int, int], ...] = ()  # masked frames, from and to


def pack(wav: Float[np.ndarray, "N"], variation: Variation | None = None) -> Float[np.ndarray, "A8 V"]:
    """Frames of 16 kHz audio, with silence added up to a whole 80 ms slot."""
    variation = variation or Variation()
    frames = np.zeros((-(-len(wav) // (HOP * MEL_FRAMES_PER_SLOT)) * MEL_FRAMES_PER_SLOT, VALUES), np.float32)
    whole = len(wav) // HOP
    frames[:whole, :HOP] = wav[: whole * HOP].reshape(whole, HOP)
    if whole * HOP < len(wav):
        frames[whole, : len(wav) - whole * HOP] = wav[whole * HOP :]
    frames[:, HOP : HOP + 4] = (variation.warp, variation.tilt, *variation.band)
    for start, end in variation.times:
        frames[start:end, HOP + 4] = 1.0
    return frames


def with_log_mel(media: Media, num_mels: int) -> Media:
    """Media with log-mel where they have sound; others as they are."""
    if media.mel.shape[-1] != VALUES:
        return media
    return media._replace(mel=log_mel(media.mel, media.mel_segment_ids, media.ctc_labels.shape[1], num_mels))


def log_mel(
    frames: Float[Array, "G A8 V"], segment_ids: Int[Array, "G A"], num_segments: int, num_mels: int
) -> Float[Array, "G A8 M"]:
    """What `dsp.log_mel_streaming` makes of each segment alone, varied as its frames say; 0 where there is none."""
    xp = frames.__array_namespace__()
    ids = xp.repeat(segment_ids, MEL_FRAMES_PER_SLOT, axis=1)
    samples = frames[..., :HOP]
    before = [_earlier(samples, ids, count) for count in (2, 1)]
    windows = xp.concatenate([*before, samples], axis=-1)[..., -dsp.WHISPER_WINDOW :]
    warp, tilt, first, last, masked = (frames[..., HOP + column, None] for column in range(VALUES - HOP))
    mel = vary(dsp.streaming_mel_of(windows, num_mels), warp, tilt)
    mean = _segment_mean(xp.mean(mel, axis=-1), ids, num_segments)[..., None]
    bins = xp.arange(num_mels)[None, None]
    mel = xp.where((masked > 0) | ((bins >= first) & (bins < last)), mean, mel)
    return xp.where(ids[..., None] > 0, mel, 0.0)


def vary(mel: Float[Array, "*B M"], warp: Array | float, tilt: Array | float) -> Float[Array, "*B M"]:
    """Bins moved along frequency (vocal tract length perturbation, Jaitly and Hinton 2013), and a tilt."""
    xp = mel.__array_namespace__()
    num_mels = mel.shape[-1]
    bins = xp.arange(num_mels, dtype=xp.float32).reshape((1,) * (mel.ndim - 1) + (-1,))
    source = xp.clip(bins * warp, 0, num_mels - 1)
    low = xp.minimum(source.astype(xp.int32), num_mels - 2)
    part = (source - low).astype(xp.float32)
    lower, upper = (xp.take_along_axis(mel, index, axis=-1) for index in (low, low + 1))
    return lower * (1.0 - part) + upper * part + tilt * (bins / (num_mels - 1) - 0.5)


def _earlier(samples: Float[Array, "G A8 H"], ids: Int[Array, "G A8"], count: int) -> Float[Array, "G A8 H"]:
    """The frame `count` frames earlier in the same segment; silence before its first."""
    xp = samples.__array_namespace__()
    same = (xp.roll(ids, count, axis=1) == ids) & (xp.arange(ids.shape[1]) >= count)[None]
    return xp.where(same[..., None], xp.roll(samples, count, axis=1), 0.0)


def _segment_mean(values: Float[Array, "G A8"], ids: Int[Array, "G A8"], num_segments: int) -> Float[Array, "G A8"]:
    """Each frame gets the mean of its segment."""
    xp = values.__array_namespace__()
    of_segment = (ids[..., None] == xp.arange(1, num_segments + 1)[None, None]).astype(xp.float32)
    counts = xp.maximum(xp.sum(of_segment, axis=1), 1.0)
    means = xp.sum(of_segment * values[..., None], axis=1) / counts
    return xp.sum(of_segment * means[:, None], axis=-1)
