"""HiFi-GAN's weights in the naming of the transformers library (`SpeechT5HifiGan`), in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from omni_jax.codec_config import HifiGanConfig
from omni_jax.models import vocoder
from omni_jax.pretrained.codec_tensors import CONV_TRANSPOSE, Entry, Tensors, conv, read_params, write_tensors


def hifigan_config(published: Mapping[str, Any]) -> HifiGanConfig:
    """From the vocoder's config.json."""
    return HifiGanConfig(
        sample_rate_hz=published["sampling_rate"],
        input_dim=published["model_in_dim"],
        initial_dim=published["upsample_initial_channel"],
        rates=tuple(published["upsample_rates"]),
        kernel_sizes=tuple(published["upsample_kernel_sizes"]),
        resblock_kernel_sizes=tuple(published["resblock_kernel_sizes"]),
        resblock_dilations=tuple(tuple(group) for group in published["resblock_dilation_sizes"]),
        slope=published["leaky_relu_slope"],
        normalize=published["normalize_before"],
    )


def hifigan_entries(cfg: HifiGanConfig) -> Iterator[Entry]:
    """Activation, upsampler and residual branches follow each other at numbers 1 + 3 i, 2 + 3 i, 3 + 3 i."""
    path, branches = "parts/layers", len(cfg.resblock_kernel_sizes)
    if cfg.normalize:
        yield from (Entry("mean", "mean"), Entry("scale", "scale"))
    yield from conv(f"{path}/00", "conv_pre")
    for i in range(len(cfg.rates)):
        yield from conv(f"{path}/{2 + 3 * i:02d}", f"upsampler.{i}", CONV_TRANSPOSE)
        for j in range(branches):
            ours, theirs = f"{path}/{3 + 3 * i:02d}/branches/{j:02d}/layers", f"resblocks.{i * branches + j}"
            for pair in range(len(cfg.resblock_dilations[j])):
                yield from conv(f"{ours}/{pair:02d}/body/layers/01", f"{theirs}.convs1.{pair}")
                yield from conv(f"{ours}/{pair:02d}/body/layers/03", f"{theirs}.convs2.{pair}")
    yield from conv(f"{path}/{2 + 3 * len(cfg.rates):02d}", "conv_post")


def read_hifigan(tensors: Mapping[str, np.ndarray], cfg: HifiGanConfig) -> dict[str, Any]:
    """Parameters from the vocoder's tensors. Raises UserError for tensors of another model."""
    if not cfg.normalize:
        tensors = {name: value for name, value in tensors.items() if name not in ("mean", "scale")}
    abstract = jax.eval_shape(lambda: vocoder.init_params(cfg, jax.random.key(0)))
    return read_params(tensors, hifigan_entries(cfg), abstract)


def write_hifigan(params: Mapping[str, Any], cfg: HifiGanConfig) -> Tensors:
    """The inverse of `read_hifigan`; without normalisation the library wants a mean of 0 and a scale of 1."""
    tensors = write_tensors(params, hifigan_entries(cfg))
    neutral = {"mean": np.zeros(cfg.input_dim, np.float32), "scale": np.ones(cfg.input_dim, np.float32)}
    return tensors if cfg.normalize else tensors | neutral
