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
    index, padding = _segment_frames(media, subframes)
    groups, segments = index.shape[:2]
    frames = jnp.take_along_axis(logits, index.reshape(groups, -1, 1), axis=1).reshape(*index.shape, logits.shape[-1])
    labels = media.ctc_labels
    width = labels.shape[-1]
    nll = optax.ctc_loss(
        frames.reshape(groups * segments, -1, logits.shape[-1]).astype(jnp.float32),
        padding.reshape(groups * segments, -1),
        labels.reshape(groups * segments, width),
        (labels == 0).astype(jnp.float32).reshape(groups * segments, width),
    ).reshape(groups, segments)
    weights = ctc_weights(media, subframes)
    weight, total = weights / jnp.maximum(jnp.sum(labels != 0, axis=-1), 1), jnp.sum(weights)
    return jnp.sum(jnp.where(weight > 0, weight * nll, 0.0)) / jnp.where(total > 0, total, 1.0)


def ctc_weights(media: Media, subframes: int) -> Float[Array, "G Z"]:
    """Of each segment: its weight times its labels; 0 where they have no alignment."""
    if not media.mel_segment_ids.shape[1]:  # a size that packs no audio
        return jnp.zeros(media.ctc_weight.shape)
    labels, (_, padding) = media.ctc_labels, _segment_frames(media, subframes)
    num_labels = jnp.sum(labels != 0, axis=-1)
    repeats = jnp.sum((labels[..., 1:] == labels[..., :-1]) & (labels[..., 1:] != 0), axis=-1)
    fits = (num_labels > 0) & (num_labels + repeats <= jnp.sum(padding == 0, axis=-1))
    return jnp.where(fits, media.ctc_weight, 0.0) * num_labels


def _segment_frames(media: Media, subframes: int) -> tuple[Int[Array, "G Z w"], Float[Array, "G Z w"]]:
    """Where each segment's frames are, from the front of a row of its own, and 1.0 where the row is padding."""
    segment_ids, num_segments = media.mel_segment_ids, media.ctc_labels.shape[1]
    slots = segment_ids.shape[1]
    length = min(_MAX_SLOTS, slots)
    mine = segment_ids[:, None, :] == jnp.arange(1, num_segments + 1)[None, :, None]
    count = jnp.sum(mine, axis=-1, keepdims=True)
    first = jnp.argmax(mine, axis=-1)[..., None]
    offset = jnp.arange(length * subframes)[None, None, :]
    real = (offset < count * subframes) & (count <= length)
    index = jnp.minimum(first * subframes + offset, slots * subframes - 1)
    return index, 1.0 - real.astype(jnp.float32)
