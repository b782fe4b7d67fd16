"""A very small omni model and a batch with two segments a row, for the parity tests."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from omni_jax.model_config import AudioEncoderConfig, DepthConfig, ModelConfig, TransformerConfig, VisionEncoderConfig
from omni_jax.models import omni
from omni_jax.types import ABSENT, Batch, Media, Modality, Timeline, TurnState

MODEL = ModelConfig(
    vocab_size=48,
    num_codebooks=3,
    codebook_size=16,
    text_posteriors=True,
    transformer=TransformerConfig(
        num_layers=3,
        embed_dim=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=12,
        mlp_dim=48,
        num_dense_layers=1,
        num_experts=4,
        expert_dim=24,
        rope_sections=(2, 2, 2),
        remat="none",
        scan_layers=True,
    ),
    audio=AudioEncoderConfig(
        num_mels=16,
        num_layers=2,
        embed_dim=16,
        num_heads=2,
        mlp_dim=24,
        conv_kernel=3,
        left_context_slots=6,
        ctc_vocab=8,
    ),
    vision=VisionEncoderConfig(image_size=16, patch_size=4, num_layers=2, embed_dim=16, num_heads=2, mlp_dim=24),
    depth=DepthConfig(num_layers=2, embed_dim=16, num_heads=2, mlp_dim=24),
)


@functools.cache  # compiling the random numbers is slow
def model_params() -> omni.Params:
    return jax.jit(omni.init_params, static_argnums=0)(MODEL, jax.random.key(0))


def with_transformer(**changes) -> ModelConfig:
    return dataclasses.replace(MODEL, transformer=dataclasses.replace(MODEL.transformer, **changes))


def dialogue(
    frames: int = 10, prefix: int = 2, patches: int = 16, rows: int = 1, seed: int = 0, cfg: ModelConfig = MODEL
) -> Batch:
    """Rows of `prefix` text tokens, one picture, then frames that carry audio, text and codes; no padding."""
    rng = np.random.default_rng(seed)
    pooled, q = patches // 4, cfg.num_codebooks
    length = prefix + pooled + frames
    text_end, frame_start = prefix, prefix + pooled

    def ids(high: int, *shape: int) -> np.ndarray:
        return rng.integers(0, high, (rows, *shape)).astype(np.int32)

    def absent(*shape: int) -> np.ndarray:
        return np.full((rows, *shape), ABSENT, np.int32)

    text, codes = absent(length), absent(length, q)
    text[:, :text_end] = ids(cfg.vocab_size, prefix)
    text[:, frame_start:] = ids(cfg.vocab_size, frames)
    codes[:, frame_start:] = ids(cfg.codebook_size, frames, q)
    codes[:, frame_start : frame_start + cfg.acoustic_delay, 1:] = ABSENT
    audio_index, patch_index = absent(length), absent(length)
    audio_index[:, frame_start:] = np.arange(frames)
    patch_index[:, text_end:frame_start] = np.arange(pooled)
    modality = np.full((rows, length), Modality.TEXT, np.int32)
    modality[:, text_end:frame_start] = Modality.PATCH
    modality[:, frame_start:] = Modality.FRAME
    time = np.concatenate([np.arange(prefix), np.full(pooled, prefix), prefix + 1 + np.arange(frames)])
    position_ids = np.repeat(time[None, :, None], 3, axis=2).repeat(rows, axis=0).astype(np.int32)
    side = cfg.vision.image_size // cfg.vision.patch_size
    block_row, block_column = np.divmod(np.arange(patches) // 4, side // 2)
    grid = np.stack([2 * block_row + np.arange(patches) % 4 // 2, 2 * block_column + np.arange(patches) % 2], -1)
    position_ids[:, text_end:frame_start, 1:] += (grid[::4] // 2).astype(np.int32)
    ones = np.ones((rows, length), np.float32)
    timeline = Timeline(
        text=text,
        text_target=ids(cfg.vocab_size, length),
        text_weight=ones,
        codes=codes,
        codes_target=ids(cfg.codebook_size, length, q),
        codes_weight=np.ones((rows, length, q), np.float32),
        audio_index=audio_index,
        patch_index=patch_index,
        modality=modality,
        position_ids=position_ids,
        segment_ids=np.ones((rows, length), np.int32),
        user_vad=ids(2, length),
        turn_state=ids(len(TurnState), length),
        event=np.zeros((rows, length), np.int32),
    )
    media = Media(
        mel=rng.standard_normal((rows, 8 * frames, cfg.audio.num_mels)).astype(np.float32),
        mel_segment_ids=np.ones((rows, frames), np.int32),
        patches=rng.random((rows, patches, 3 * cfg.vision.patch_size**2)).astype(np.float32),
        patch_positions=np.broadcast_to(grid.astype(np.int32), (rows, patches, 2)).copy(),
        patch_segment_ids=np.ones((rows, patches), np.int32),
        ctc_labels=np.zeros((rows, 1, 2), np.int32),
        ctc_weight=np.zeros((rows, 1), np.float32),
        tags=np.zeros((rows, 1, 4), np.int32),
        phones=np.full((rows, 4 * frames), -1, np.int32),
        words=np.full((rows, frames), -1, np.int32),
    )
    speech_index = np.broadcast_to(np.arange(frame_start, length, dtype=np.int32), (rows, frames)).copy()
    return Batch(timeline, media, speech_index, np.zeros((rows, length), np.int32))


def concatenate(first: Batch, second: Batch) -> Batch:
    """Packs the rows of two batches behind each other, as segments 1 and 2 of one row and of its pools."""
    slots, pooled = first.media.mel_segment_ids.shape[1], first.media.patches.shape[1] // 4

    def shift(values: np.ndarray, by: int) -> np.ndarray:
        return np.where(values >= 0, values + by, values)

    timeline = second.timeline._replace(
        audio_index=shift(second.timeline.audio_index, slots),
        patch_index=shift(second.timeline.patch_index, pooled),
        segment_ids=second.timeline.segment_ids + 1,
    )
    media = second.media._replace(
        mel_segment_ids=second.media.mel_segment_ids + 1, patch_segment_ids=second.media.patch_segment_ids + 1
    )
    moved = Batch(timeline, media, shift(second.speech_index, first.timeline.text.shape[1]), second.task)
    groups = [(first.timeline, moved.timeline), (first.media, moved.media)]
    joined = [type(a)(*(np.concatenate(pair, axis=1) for pair in zip(a, b))) for a, b in groups]
    rest = [np.concatenate(pair, axis=1) for pair in zip(first[2:], moved[2:])]
    return Batch(*joined, *rest)
