"""DAC's weights in the naming of the transformers library, in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omni_jax.codec_config import DacConfig
from omni_jax.pretrained.codec_tensors import (
    CHANNELS,
    CONV_TRANSPOSE,
    POINTWISE,
    Entry,
    Tensors,
    abstract_params,
    conv,
    read_params,
    write_tensors,
)

RESIDUAL_UNITS = 3


def dac_config(published: Mapping[str, Any]) -> DacConfig:
    """From DAC's config.json."""
    return DacConfig(
        sample_rate_hz=published["sampling_rate"],
        encoder_dim=published["encoder_hidden_size"],
        strides=tuple(published["downsampling_ratios"]),
        decoder_dim=published["decoder_hidden_size"],
        num_codebooks=published["n_codebooks"],
        codebook_size=published["codebook_size"],
        codebook_dim=published["codebook_dim"],
        quantizer_dropout=float(published["quantizer_dropout"]),
    )


def published_config(cfg: DacConfig) -> dict[str, Any]:
    """The inverse of `dac_config`."""
    return {
        "model_type": "dac",
        "architectures": ["DacModel"],
        "sampling_rate": cfg.sample_rate_hz,
        "encoder_hidden_size": cfg.encoder_dim,
        "downsampling_ratios": list(cfg.strides),
        "decoder_hidden_size": cfg.decoder_dim,
        "n_codebooks": cfg.num_codebooks,
        "codebook_size": cfg.codebook_size,
        "codebook_dim": cfg.codebook_dim,
        "quantizer_dropout": cfg.quantizer_dropout,
    }


def dac_entries(cfg: DacConfig) -> Iterator[Entry]:
    yield from _side(cfg, "encoder")
    yield from _side(cfg, "decoder")
    for q in range(cfg.num_codebooks):
        name = f"quantizer.quantizers.{q}"
        for ours, theirs in (("in", "in_proj"), ("out", "out_proj")):
            yield Entry(f"quantizer/{ours}_kernel", f"{name}.{theirs}.weight", POINTWISE, item=q)
            yield Entry(f"quantizer/{ours}_bias", f"{name}.{theirs}.bias", item=q)
        yield Entry("quantizer/codebooks", f"{name}.codebook.weight", item=q)


def _side(cfg: DacConfig, side: str) -> Iterator[Entry]:
    """Both sides are numbered alike: a convolution, blocks of a resampler and residual units, Snake, a convolution."""
    path, number = f"{side}/parts/layers", 1
    yield from conv(f"{path}/00", f"{side}.conv1")
    for block in range(len(cfg.strides)):
        name = f"{side}.block.{block}"
        if side == "encoder":
            yield from _residual_units(path, name, number)
            number += RESIDUAL_UNITS
        yield Entry(f"{path}/{number:02d}/alpha", f"{name}.snake1.alpha", CHANNELS)
        if side == "encoder":
            yield from conv(f"{path}/{number + 1:02d}", f"{name}.conv1")
        else:
            yield from conv(f"{path}/{number + 1:02d}", f"{name}.conv_t1", CONV_TRANSPOSE)
        number += 2
        if side == "decoder":
            yield from _residual_units(path, name, number)
            number += RESIDUAL_UNITS
    yield Entry(f"{path}/{number:02d}/alpha", f"{side}.snake1.alpha", CHANNELS)
    yield from conv(f"{path}/{number + 1:02d}", f"{side}.conv2")


def _residual_units(path: str, name: str, first: int) -> Iterator[Entry]:
    for unit in range(RESIDUAL_UNITS):
        ours, theirs = f"{path}/{first + unit:02d}/body/layers", f"{name}.res_unit{unit + 1}"
        for part in (1, 2):
            yield Entry(f"{ours}/{2 * part - 2:02d}/alpha", f"{theirs}.snake{part}.alpha", CHANNELS)
            yield from conv(f"{ours}/{2 * part - 1:02d}", f"{theirs}.conv{part}")


def read_dac(tensors: Mapping[str, np.ndarray], cfg: DacConfig) -> dict[str, Any]:
    """Parameters from DAC's tensors. Raises UserError for tensors of another model."""
    return read_params(tensors, dac_entries(cfg), abstract_params(cfg))


def write_dac(params: Mapping[str, Any], cfg: DacConfig) -> Tensors:
    return write_tensors(params, dac_entries(cfg))
