"""CTC (Graves et al., 2006) on the audio encoder's frames, one segment of a pool at a time."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from omni_jax.types import Media

_MAX_SLOTS = 48  # 3.8 s: a longer segment has no CTC term, so that the recursion over frames stays short


def ctc_term(logits: Float[Array, "G W U"], media: Media, subframes: int) -> Float[Array, ""]:
    """Mean over the labels of all weighted segments of -log p(characters | audio), in nats a character.

    A segment whose characters do not fit into its frames has no alignment and is left out.
    """
    frames, padding = _segment_frames(logits, media.mel_segment_ids, media.ctc_labels.shape[1], subframes)
    labels = media.ctc_labels
    groups, segments, width = labels.shape
    nll = optax.ctc_loss(
        frames.reshape(groups * segments, -1, logits.shape[-1]).astype(jnp.float32),
        padding.reshape(groups * segments, -1),
        labels.reshape(groups * segments, width),
        (labels == 0).astype(jnp.float32).reshape(groups * segments, width),
    ).reshape(groups, segments)
    num_labels = jnp.sum(labels != 0, axis=-1)
    repeats = jnp.sum((labels[..., 1:] == labels[..., :-1]) & (labels[..., 1:] != 0), axis=-1)
    fits = (num_labels > 0) & (num_labels + repeats <= jnp.sum(padding == 0, axis=-1))
    weight = jnp.where(fits, media.ctc_weight, 0.0)
    total = jnp.sum(weight * num_labels)
    return jnp.sum(jnp.where(weight > 0, weight * nll, 0.0)) / jnp.where(total > 0, total, 1.0)


def _segment_frames(
    logits: Float[Array, "G W U"], segment_ids: Int[Array, "G A"], num_segments: int, subframes: int
) -> tuple[Float[Array, "G Z w U"], Float[Array, "G Z w"]]:
    """Each segment's frames moved to the front of its own row, and 1.0 where a row is padding."""
    groups, slots = segment_ids.shape
    length = min(_MAX_SLOTS, slots)
    mine = segment_ids[:, None, :] == jnp.arange(1, num_segments + 1)[None, :, None]
    count = jnp.sum(mine, axis=-1, keepdims=True)
    first = jnp.argmax(mine, axis=-1)[..., None]
    offset = jnp.arange(length * subframes)[None, None, :]
    real = (offset < count * subframes) & (count <= length)
    index = jnp.minimum(first * subframes + offset, slots * subframes - 1)
    frames = jnp.take_along_axis(logits, index.reshape(groups, -1, 1), axis=1)
    return frames.reshape(*index.shape, logits.shape[-1]), 1.0 - real.astype(jnp.float32)
