"""The omni model on one screen: encode, adapt, gather onto the timeline, transform, decode."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from omni_jax.model_config import ModelConfig, parse_lora
from omni_jax.models import binding
from omni_jax.models.adapters import PATCHES_PER_TOKEN, Adapter, VisionAdapter
from omni_jax.models.binding import Params
from omni_jax.models.decoders import DepthTransformer, TurnHead
from omni_jax.models.encoders.conformer import Conformer
from omni_jax.models.encoders.published import Pictures, WhisperSlots
from omni_jax.models.encoders.vit import ViT
from omni_jax.models.language import TextHead
from omni_jax.models.namer import Namer, written, written_names
from omni_jax.models.transformer import Transformer
from omni_jax.nn.embed import gather_pool, lookup, sum_codes
from omni_jax.nn.low_rank_params import add_low_rank
from omni_jax.nn.param import weight
from omni_jax.parallel.sharding import constrain
from omni_jax.sound_frames import with_log_mel
from omni_jax.types import Batch, Media, Modality, ModelOutput, Projection, Timeline

_EMBEDDING_STD = 0.1


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
        add_low_rank(self, parse_lora(cfg.lora), rngs)

    def _make_inputs(self, cfg: ModelConfig, rngs: nnx.Rngs) -> None:
        """All that a position can carry beside text."""
        dim, trunk = cfg.transformer.embed_dim, cfg.transformer
        run = {"scan_layers": trunk.scan_layers, "remat": trunk.remat}
        codes_shape, codes_axes = (cfg.num_codebooks, cfg.codebook_size, dim), ("codebook", "vocab", "embed")
        self.speech_embedding = weight(rngs, codes_shape, codes_axes, _EMBEDDING_STD * cfg.num_codebooks**-0.5)
        self.modality_embedding = weight(rngs, (len(Modality), dim), ("small", "embed"), _EMBEDDING_STD)
        if cfg.audio.tower is None:
            self.audio_encoder = Conformer(cfg.audio, rngs, **run)
        else:
            self.audio_encoder = WhisperSlots(cfg.audio, rngs, remat=trunk.remat)
        self.audio_adapter = Adapter(cfg.audio.slot_dim, dim, rngs)
        if cfg.vision.tower is None:
            self.vision_encoder = ViT(cfg.vision, rngs, **run)
        else:
            self.vision_encoder = Pictures(cfg.vision, rngs, remat=trunk.remat)
        self.vision_adapter = VisionAdapter(cfg.vision.patch_dim, dim, rngs)
        if cfg.text_posteriors:
            self.audio_namer, self.vision_namer = Namer(), Namer()

    def __call__(self, batch: Batch) -> ModelOutput:
        """Everything that the losses read. An empty pool, or no `speech_index`, skips that part of the computation.

        On a mesh whose axis `context` splits rows, `batch` has been through `parallel/context.py:balance`.
        """
        timeline = batch.timeline
        if self.cfg.text_only:
            x = lookup(self.text_embedding[...].astype(self.cfg.compute_dtype), timeline.text)
            x = constrain(x, "batch", "length", "embed_out")
            hidden, moe = self.transformer(x, timeline.position_ids, timeline.segment_ids)
            return ModelOutput(**dict.fromkeys(ModelOutput._fields) | {"hidden": hidden, "moe": moe})
        encoded = self.encode_audio(batch.media)
        audio, words = self.hear(batch.media, encoded)
        pictures, tags = self.see(batch.media)
        x = self.embed(timeline, audio, pictures)
        hidden, moe = self.transformer(x, timeline.position_ids, timeline.segment_ids)
        semantic, codes = self.decode_speech(batch, hidden)
        vad, turn = self.turn_head(hidden)
        ctc = None if encoded is None else self.audio_encoder.ctc_logits(encoded).astype(jnp.float32)
        phones = None if encoded is None else self.audio_encoder.phone_logits(encoded).astype(jnp.float32)
        return ModelOutput(hidden, semantic, codes, vad, turn, ctc, phones, words, tags, moe)

    def encode_audio(self, media: Media) -> Float[Array, "G A I"] | None:
        """None for an empty pool, and for one of words without sound."""
        if 0 in media.mel.shape[1:]:
            return None
        mel = with_log_mel(media, self.cfg.audio.num_mels).mel
        return self.audio_encoder(mel.astype(self.cfg.compute_dtype), media.mel_segment_ids)

    def hear(self, media: Media, encoded: Float[Array, "G A I"] | None) -> tuple[Array | None, Array | None]:
        """One embedding a slot [G, A, D], and which piece each names [G, A, V]; None where there is none.

        A pool without mel bins holds the words themselves (`data.written_media`).
        """
        if encoded is not None:
            return self.adapt_audio(encoded)
        return (written(media.words, self.text_embedding[...]) if media.words.shape[1] else None), None

    def adapt_audio(self, encoded: Float[Array, "G A I"]) -> tuple[Array, Array | None]:
        """`hear` from the encoder's outputs on; streaming starts here."""
        x = self.audio_adapter(encoded)
        if not self.cfg.text_posteriors:
            return x, None
        namer, embedding = self.audio_namer, self.text_embedding[...]
        logits = namer.logits(x, embedding)
        return namer.shape(x) + namer.named(logits, embedding).astype(x.dtype), logits

    def see(self, media: Media) -> tuple[Array | None, Array | None]:
        """One embedding a pooled patch (2x2 patches) [G, S, D], and which pieces name each picture [G, Z, V]."""
        if not media.patches.shape[1]:
            return None, None
        pictures = jnp.arange(1, media.tags.shape[1] + 1)
        of_picture = media.patch_segment_ids[:, None, ::PATCHES_PER_TOKEN] == pictures[None, :, None]
        of_picture = of_picture.astype(self.cfg.compute_dtype)
        to_patches = jnp.swapaxes(of_picture, 1, 2)
        if not media.patches.shape[2]:
            return to_patches @ written_names(media.tags, self.text_embedding[...]), None
        patches = media.patches.astype(self.cfg.compute_dtype)
        x = self.vision_adapter(self.vision_encoder(patches, media.patch_positions, media.patch_segment_ids))
        if not self.cfg.text_posteriors:
            return x, None
        mean = (of_picture @ x) / jnp.maximum(of_picture.sum(-1, keepdims=True), 1.0)
        logits = self.vision_namer.logits(mean, self.text_embedding[...])
        name = self.vision_namer.named(logits, self.text_embedding[...]).astype(x.dtype)
        return self.vision_namer.shape(x) + to_patches @ name, logits

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
    ) -> tuple[Float[Array, "B T W"] | None, Float[Array, "B Ns Q1 W"] | None]:
        """Teacher-forced: codebook 0 everywhere, the others at `speech_index`."""
        if batch.speech_index.shape[1] == 0:
            return None, None
        index = jnp.maximum(batch.speech_index, 0)[:, :, None]
        timeline = batch.timeline
        codes = self.speech_decoder(
            jnp.take_along_axis(hidden, index, axis=1),
            jnp.take_along_axis(timeline.text_target, index[:, :, 0], axis=1),
            jnp.take_along_axis(timeline.codes_target, index, axis=1),
        )
        return self.speech_decoder.semantic(hidden, timeline.text_target), codes[:, :, 1:]


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


def text_projection(cfg: ModelConfig, params: Params) -> Projection:
    """What text logits are computed with, apart from `apply` so that a loss never holds all logits."""
    return bind(cfg, params).text_projection()


def code_heads(cfg: ModelConfig, params: Params) -> Projection | None:
    """What the logits of all codebooks are computed with; None in a model of text alone."""
    return None if cfg.text_only else bind(cfg, params).speech_decoder.heads()
