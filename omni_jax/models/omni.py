"""The omni model on one screen: encode, adapt, gather onto the timeline, transform, decode."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from omni_jax.config import ModelConfig
from omni_jax.models import binding
from omni_jax.models.adapters import PATCHES_PER_TOKEN, Adapter, VisionAdapter
from omni_jax.models.binding import Params
from omni_jax.models.decoders import DepthTransformer, TurnHead
from omni_jax.models.encoders.conformer import Conformer
from omni_jax.models.encoders.vit import ViT
from omni_jax.models.language import TextHead
from omni_jax.models.transformer import Transformer
from omni_jax.nn.embed import gather_pool, lookup, sum_codes
from omni_jax.nn.param import constant, weight
from omni_jax.parallel.sharding import constrain
from omni_jax.types import Batch, Media, Modality, ModelOutput, TextProjection, Timeline

_EMBEDDING_STD = 0.1
_COSINE_SCALE = 10.0  # of the cosines at the start


class Omni(TextHead, nnx.Module):
    """Hears, sees, reads, writes and speaks on one timeline (see docs/architecture.md)."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.cfg, dim = cfg, cfg.transformer.embed_dim
        self.text_embedding = weight(rngs, (cfg.vocab_size, dim), ("vocab", "embed"), _EMBEDDING_STD)
        if not cfg.text_only:
            self._make_inputs(cfg, rngs)
        self.transformer = Transformer(cfg.transformer, rngs)
        self.make_text_head(cfg, rngs)
        if not cfg.text_only:
            self.speech_decoder = DepthTransformer(cfg, rngs)
            self.turn_head = TurnHead(dim, rngs)

    def _make_inputs(self, cfg: ModelConfig, rngs: nnx.Rngs) -> None:
        """All that a position can carry beside text."""
        dim, trunk = cfg.transformer.embed_dim, cfg.transformer
        run = {"scan_layers": trunk.scan_layers, "remat": trunk.remat}
        codes_shape, codes_axes = (cfg.num_codebooks, cfg.codebook_size, dim), ("codebook", "vocab", "embed")
        self.speech_embedding = weight(rngs, codes_shape, codes_axes, _EMBEDDING_STD * cfg.num_codebooks**-0.5)
        self.modality_embedding = weight(rngs, (len(Modality), dim), ("small", "embed"), _EMBEDDING_STD)
        self.audio_encoder = Conformer(cfg.audio, rngs, **run)
        self.audio_adapter = Adapter(cfg.audio.embed_dim, dim, rngs)
        self.vision_encoder = ViT(cfg.vision, rngs, **run)
        self.vision_adapter = VisionAdapter(cfg.vision.embed_dim, dim, rngs)
        self.word_log_scale = constant((1,), ("small",), math.log(_COSINE_SCALE))
        self.tag_log_scale = constant((1,), ("small",), math.log(_COSINE_SCALE))

    def __call__(self, batch: Batch) -> ModelOutput:
        """Everything that the losses read. An empty pool, or no `speech_index`, skips that part of the computation."""
        timeline = batch.timeline
        if self.cfg.text_only:
            x = lookup(self.text_embedding[...].astype(self.cfg.compute_dtype), timeline.text)
            x = constrain(x, "batch", "length", "embed_out")
            hidden, moe = self.transformer(x, timeline.position_ids, timeline.segment_ids)
            return ModelOutput(**dict.fromkeys(ModelOutput._fields) | {"hidden": hidden, "moe": moe})
        encoded = self.encode_audio(batch.media)
        pictures = self.encode_pictures(batch.media)
        audio = None if encoded is None else self.audio_adapter(encoded)
        x = self.embed(timeline, audio, pictures)
        hidden, moe = self.transformer(x, timeline.position_ids, timeline.segment_ids)
        semantic, codes = self.decode_speech(batch, hidden)
        vad, turn = self.turn_head(hidden)
        ctc = None if encoded is None else self.audio_encoder.ctc_logits(encoded).astype(jnp.float32)
        phones = None if encoded is None else self.audio_encoder.phone_logits(encoded).astype(jnp.float32)
        words = None if audio is None else self.piece_logits(audio, self.word_log_scale[...])
        tags = None if pictures is None else self.tag_logits(pictures, batch.media)
        return ModelOutput(hidden, semantic, codes, vad, turn, ctc, phones, words, tags, moe)

    def encode_audio(self, media: Media) -> Float[Array, "G A I"] | None:
        if media.mel.shape[1] == 0:
            return None
        return self.audio_encoder(media.mel.astype(self.cfg.compute_dtype), media.mel_segment_ids)

    def encode_pictures(self, media: Media) -> Float[Array, "G S D"] | None:
        """One embedding a pooled patch (2x2 patches)."""
        if media.patches.shape[1] == 0:
            return None
        patches = media.patches.astype(self.cfg.compute_dtype)
        return self.vision_adapter(self.vision_encoder(patches, media.patch_positions, media.patch_segment_ids))

    def tag_logits(self, pictures: Float[Array, "G S D"], media: Media) -> Float[Array, "G Z V"]:
        """Which pieces name each picture: `piece_logits` of the mean of its patches."""
        segments = jnp.arange(1, media.tags.shape[1] + 1)
        mine = (media.patch_segment_ids[:, None, ::PATCHES_PER_TOKEN] == segments[None, :, None]).astype(pictures.dtype)
        mean = (mine @ pictures) / jnp.maximum(mine.sum(-1, keepdims=True), 1.0)
        return self.piece_logits(mean, self.tag_log_scale[...])

    def piece_logits(self, x: Float[Array, "G S D"], log_scale: Float[Array, "1"]) -> Float[Array, "G S V"]:
        """Cosines between adapted embeddings and those of the text pieces, at a learned temperature.

        As in CLIP (arXiv 2103.00020 section 2.3): the lengths of embeddings that text has shaped say nothing here.
        """
        cosine = _unit(x.astype(jnp.float32)) @ _unit(self.text_embedding[...]).T
        return cosine * jnp.exp(log_scale)[None, None]

    def embed(
        self, timeline: Timeline, audio: Float[Array, "G A D"] | None, pictures: Float[Array, "G S D"] | None
    ) -> Float[Array, "B T D"]:
        """The sum of what each position carries; absent parts add zero."""
        x = lookup(self.text_embedding[...], timeline.text) + lookup(self.modality_embedding[...], timeline.modality)
        x = (x + sum_codes(self.speech_embedding[...], timeline.codes)).astype(self.cfg.compute_dtype)
        if audio is not None:
            x = x + gather_pool(audio, timeline.audio_index)
        if pictures is not None:
            x = x + gather_pool(pictures, timeline.patch_index)
        return constrain(x, "batch", "length", "embed_out")

    def decode_speech(
        self, batch: Batch, hidden: Float[Array, "B T D"]
    ) -> tuple[Float[Array, "B T K"] | None, Float[Array, "B Ns Q K"] | None]:
        """Teacher-forced logits: codebook 0 everywhere, all codebooks at `speech_index`."""
        if batch.speech_index.shape[1] == 0:
            return None, None
        index = jnp.maximum(batch.speech_index, 0)[:, :, None]
        timeline = batch.timeline
        codes = self.speech_decoder(
            jnp.take_along_axis(hidden, index, axis=1),
            jnp.take_along_axis(timeline.text_target, index[:, :, 0], axis=1),
            jnp.take_along_axis(timeline.codes_target, index, axis=1),
        )
        return self.speech_decoder.semantic_logits(hidden, timeline.text_target), codes


def _unit(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def init_params(cfg: ModelConfig, key: PRNGKeyArray | Shaped[Array, "..."]) -> Params:
    """Fresh parameters as a plain nested dict. Pure: jit it with `out_shardings` to create them in place."""
    return binding.init_params(Omni, cfg, key)


def param_axes(cfg: ModelConfig) -> dict[str, Any]:
    """The same tree with `ParamAxes` leaves: the logical axes and the shape of every parameter."""
    return binding.param_axes(Omni, cfg)


def bind(cfg: ModelConfig, params: Params) -> Omni:
    """The model as a module over the given parameters; costs only host time, inside `jit` none at run time."""
    return binding.bind(Omni, cfg, params)


def apply(cfg: ModelConfig, params: Params, batch: Batch) -> ModelOutput:
    """The forward pass."""
    return bind(cfg, params)(batch)


def text_logits(cfg: ModelConfig, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Text logits of hidden states."""
    return bind(cfg, params).text_logits(hidden)


def text_projection(cfg: ModelConfig, params: Params) -> TextProjection:
    """What text logits are computed with, apart from `apply` so that a loss never holds all logits."""
    return bind(cfg, params).text_projection()
