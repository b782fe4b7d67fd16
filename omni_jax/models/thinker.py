"""Qwen3-Omni's thinker (arXiv 2509.17765): text, audio and pictures in, text out. Published weights run as they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.encoder_config import QwenAudioConfig, QwenVisionConfig
from omni_jax.model_config import ModelConfig
from omni_jax.models.binding import Params, bind
from omni_jax.models.encoders.qwen_audio import QwenAudio
from omni_jax.models.encoders.qwen_vision import MERGED, QwenVision
from omni_jax.models.language import LanguageModel
from omni_jax.nn.cache import KVCache
from omni_jax.nn.embed import gather_pool
from omni_jax.types import ABSENT


@dataclass(frozen=True)
class ThinkerConfig:
    text: ModelConfig
    audio: QwenAudioConfig
    vision: QwenVisionConfig


class ThinkerInput(NamedTuple):
    """Rows of positions, and pools of clips and pictures, one pool for each row."""

    text: Int[Array, "B T"]
    position_ids: Int[Array, "B T 3"]
    audio_index: Int[Array, "B T"]  # the clip's output that stands in place of the text; ABSENT elsewhere
    patch_index: Int[Array, "B T"]  # the picture's merged token
    mel: Float[Array, "B N M"]
    mel_frames: Int[Array, " B"]
    patches: Float[Array, "B P X"]
    patch_positions: Int[Array, "B P 2"]
    patch_sizes: Int[Array, "B P 2"]
    patch_segment_ids: Int[Array, "B P"]


class Thinker(nnx.Module):
    def __init__(self, cfg: ThinkerConfig, rngs: nnx.Rngs):
        self.language = LanguageModel(cfg.text, rngs)
        self.audio = QwenAudio(cfg.audio, rngs)
        self.vision = QwenVision(cfg.vision, rngs)

    def embed(self, inputs: ThinkerInput) -> tuple[Float[Array, "B T D"], Float[Array, "N B T D"]]:
        """Each position's text, sound or picture, and what DeepStack adds behind the first layers."""
        heard, _ = self.audio(inputs.mel, inputs.mel_frames)
        seen, deep = self.vision(inputs.patches, inputs.patch_positions, inputs.patch_sizes, inputs.patch_segment_ids)
        x = jnp.where((inputs.audio_index >= 0)[..., None], gather_pool(heard, inputs.audio_index), 0)
        x = x + gather_pool(seen, inputs.patch_index)
        is_text = (inputs.audio_index < 0) & (inputs.patch_index < 0)
        x = x + self.language.embed(jnp.where(is_text, inputs.text, ABSENT))
        return x, jnp.stack([gather_pool(layer, inputs.patch_index) for layer in deep])

    def __call__(self, inputs: ThinkerInput) -> Float[Array, "B T V"]:
        """Next-token logits; a negative text id is padding at a row's end."""
        x, deep = self.embed(inputs)
        real = (inputs.text >= 0).astype(jnp.int32)
        hidden, _ = self.language.transformer(x, inputs.position_ids, real, deep)
        return self.language.text_logits(hidden)

    def prefill(self, inputs: ThinkerInput, cache: KVCache) -> tuple[Float[Array, "B T V"], KVCache]:
        x, deep = self.embed(inputs)
        write = jnp.ones(inputs.text.shape, bool)
        hidden, cache = self.language.transformer.extend(
            x, inputs.position_ids, cache, write, pinned=False, residuals=deep
        )
        return self.language.text_logits(hidden), cache


@partial(jax.jit, static_argnums=0)
def logits(cfg: ThinkerConfig, params: Params, inputs: ThinkerInput) -> Float[Array, "B T V"]:
    return bind(Thinker, cfg, params)(inputs)


@partial(jax.jit, static_argnums=(0, 3))
def greedy(cfg: ThinkerConfig, params: Params, inputs: ThinkerInput, length: int) -> Int[Array, "B N"]:
    """The `length` most likely tokens after each row, one cached step a token; rows have no padding."""
    model, (batch, prompt) = bind(Thinker, cfg, params), inputs.text.shape
    transformer = model.language.transformer
    cache = transformer.init_cache(batch, 0, prompt + length, jnp.dtype(cfg.text.compute_dtype))
    first, cache = model.prefill(inputs, cache)

    def step(carry: tuple, _: None) -> tuple[tuple, Int[Array, "B"]]:
        token, position, cache = carry
        x = model.language.embed(token[:, None])
        hidden, cache = transformer.extend(
            x, jnp.broadcast_to(position[:, None, None], (batch, 1, 3)), cache, jnp.ones((batch, 1), bool), pinned=False
        )
        following = jnp.argmax(model.language.text_logits(hidden)[:, -1], axis=-1)
        return (following, position + 1, cache), token

    start = jnp.argmax(first[:, -1], axis=-1)
    position = jnp.max(inputs.position_ids, axis=(1, 2)) + 1
    _, tokens = jax.lax.scan(step, (start, position, cache), length=length)
    return tokens.T


def position_ids(is_picture: np.ndarray, grids: list[tuple[int, int]]) -> Int[np.ndarray, "T 3"]:
    """TM-RoPE of one row: text and audio count on, a picture's rows and columns fan out from where it begins.

    Args:
        is_picture: [T], True where a merged patch stands; pictures are apart from each other.
        grids: patches of each picture, (rows, columns), in order.
    """
    ids, following, place, pictures = [], 0, 0, iter(grids)
    while place < len(is_picture):
        if not is_picture[place]:
            ids.append(np.full((1, 3), following))
            following, place = following + 1, place + 1
            continue
        rows, columns = (size // 2 for size in next(pictures))
        assert rows * columns * MERGED > 0
        row, column = np.divmod(np.arange(rows * columns), columns)
        ids.append(following + np.stack([np.zeros_like(row), row, column], axis=-1))
        following, place = following + max(rows, columns), place + rows * columns
    return np.concatenate(ids).astype(np.int32)
