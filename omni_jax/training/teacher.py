"""Distillation of a published Whisper encoder into the semantic codebook (arXiv:2410.00037, section 3.3.4).

Mimi's teacher is WavLM; any speech encoder with outputs at 50 Hz serves. It hears the crop alone, without the silence
up to 30 s that Whisper was trained with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from omni_jax import dsp
from omni_jax.config import MeshConfig
from omni_jax.encoder_config import WhisperEncoderConfig
from omni_jax.models.binding import bind
from omni_jax.models.encoders.tower import WhisperEncoder
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.whisper import WHISPER


class Teacher(NamedTuple):
    config: WhisperEncoderConfig
    params: dict[str, Any]


def read_teacher(directory: str) -> Teacher:
    """The encoder of a published Whisper. Raises UserError for what is none."""
    loaded = load_model(directory, make_mesh(MeshConfig(), jax.devices()[:1]), family=WHISPER)
    return Teacher(loaded.config, jax.device_get(loaded.params))


def hear(teacher: Teacher, wav: Float[Array, "B N"], sample_rate_hz: int) -> Float[Array, "B U D"]:
    """The teacher's outputs at 50 Hz; N is whole frames of 20 ms."""
    mel = log_mel(wav, sample_rate_hz, teacher.config.num_mels)
    return jax.lax.stop_gradient(bind(WhisperEncoder, teacher.config, teacher.params)(mel))


def log_mel(wav: Float[Array, "B N"], sample_rate_hz: int, num_mels: int) -> Float[Array, "B T M"]:
    """`dsp.log_mel_whisper` of a crop, at 16 kHz or a multiple of 8 kHz above it: windows as long in time have the same
    bins, and those above 8 kHz are left out."""
    window, hop = (n * sample_rate_hz // dsp.WHISPER_SAMPLE_RATE_HZ for n in (dsp.WHISPER_WINDOW, dsp.WHISPER_HOP))
    padded = jnp.pad(wav, ((0, 0), (window // 2, window // 2)), mode="reflect")
    spectrum = dsp.stft(padded, window, hop)[:, : wav.shape[1] // hop, : dsp.WHISPER_WINDOW // 2 + 1]
    power = jnp.square(jnp.abs(spectrum) * (dsp.WHISPER_WINDOW / window))
    filters = dsp.mel_filterbank(dsp.WHISPER_SAMPLE_RATE_HZ, dsp.WHISPER_WINDOW, num_mels)
    mel = jnp.log10(jnp.maximum(jnp.matmul(power, filters, precision=jax.lax.Precision.HIGHEST), 1e-10))
    loudest = jnp.max(mel, axis=(-2, -1), keepdims=True)
    return (jnp.maximum(mel, loudest - 8.0) + 4.0) / 4.0


def distillation_loss(named: Float[Array, "B T D"], heard: Float[Array, "B U D"]) -> Float[Array, ""]:
    """1 - cosine between each code's vector and the mean of what the teacher heard in its frame, U / T outputs."""
    batch, frames, dim = named.shape
    target = jnp.mean(heard.reshape(batch, frames, -1, dim), axis=2)
    lengths = jnp.linalg.norm(named, axis=-1) * jnp.linalg.norm(target, axis=-1)
    return 1.0 - jnp.mean(jnp.sum(named * target, axis=-1) / jnp.maximum(lengths, 1e-8))
