"""EnCodec's and Mimi's weights in the naming of the transformers library, version 4 or 5, in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omni_jax.codec_config import SeanetConfig
from omni_jax.errors import UserError
from omni_jax.pretrained.codec_tensors import (
    CONV_TRANSPOSE,
    DEPTHWISE,
    LINEAR,
    POINTWISE,
    Entry,
    Tensors,
    abstract_params,
    conv,
    read_params,
    write_tensors,
)


def encodec_config(published: Mapping[str, Any]) -> SeanetConfig:
    """From EnCodec's config.json. Raises UserError for the 48 kHz model, whose norm and chunks are not built."""
    if published.get("norm_type") != "weight_norm" or published.get("audio_channels", 1) != 1:
        raise UserError("encodec config: only the causal mono model with weight_norm (24 kHz) is supported")
    rate, hop = published["sampling_rate"], int(np.prod(published["upsampling_ratios"]))
    bits = int(np.log2(published["codebook_size"]))
    frame_rate_hz = -(-rate // hop)
    return SeanetConfig(
        conv_shortcut=published["use_conv_shortcut"],
        lstm_layers=published["num_lstm_layers"],
        latent_dim=published["hidden_size"],
        num_heads=1,
        num_codebooks=int(1000 * published["target_bandwidths"][-1] // (frame_rate_hz * bits)),
        codebook_dim=published.get("codebook_dim") or published["hidden_size"],
        **_shared(published),
    )


def mimi_config(published: Mapping[str, Any]) -> SeanetConfig:
    """From Mimi's config.json."""
    convolution_rate_hz = -(-published["sampling_rate"] // int(np.prod(published["upsampling_ratios"])))
    frame_rate_hz = published.get("frame_rate") or convolution_rate_hz / 2
    if published["num_key_value_heads"] != published["num_attention_heads"]:
        raise UserError("mimi config: num_key_value_heads differs from num_attention_heads, which is not supported")
    return SeanetConfig(
        conv_shortcut=published["use_conv_shortcut"],
        lstm_layers=0,
        latent_dim=published["hidden_size"],
        transformer_layers=published["num_hidden_layers"],
        num_heads=published["num_attention_heads"],
        mlp_dim=published["intermediate_size"],
        context_frames=published["sliding_window"],
        layer_scale=published["layer_scale_initial_scale"],
        resample=int(convolution_rate_hz / frame_rate_hz),
        num_codebooks=published["num_quantizers"],
        codebook_dim=published["codebook_dim"],
        semantic_codebooks=published["num_semantic_quantizers"],
        **_shared(published),
    )


def _shared(published: Mapping[str, Any]) -> dict[str, Any]:
    if not published["use_causal_conv"] or published["trim_right_ratio"] != 1.0:
        raise UserError("codec config: use_causal_conv=false or trim_right_ratio below 1 is not supported")
    return {
        "sample_rate_hz": published["sampling_rate"],
        "num_filters": published["num_filters"],
        "ratios": tuple(published["upsampling_ratios"]),
        "kernel_size": published["kernel_size"],
        "last_kernel_size": published["last_kernel_size"],
        "residual_kernel_size": published["residual_kernel_size"],
        "num_residual_layers": published["num_residual_layers"],
        "dilation_growth": published["dilation_growth_rate"],
        "compress": published["compress"],
        "pad_mode": published["pad_mode"],
        "codebook_size": published["codebook_size"],
    }


def _published(cfg: SeanetConfig) -> dict[str, Any]:
    return {
        "sampling_rate": cfg.sample_rate_hz,
        "audio_channels": 1,
        "hidden_size": cfg.latent_dim,
        "num_filters": cfg.num_filters,
        "upsampling_ratios": list(cfg.ratios),
        "kernel_size": cfg.kernel_size,
        "last_kernel_size": cfg.last_kernel_size,
        "residual_kernel_size": cfg.residual_kernel_size,
        "num_residual_layers": cfg.num_residual_layers,
        "dilation_growth_rate": cfg.dilation_growth,
        "compress": cfg.compress,
        "pad_mode": cfg.pad_mode,
        "use_conv_shortcut": cfg.conv_shortcut,
        "use_causal_conv": True,
        "trim_right_ratio": 1.0,
        "codebook_size": cfg.codebook_size,
        "codebook_dim": cfg.codebook_dim,
    }


def published_encodec(cfg: SeanetConfig) -> dict[str, Any]:
    """The inverse of `encodec_config`, with the bandwidth of all codebooks as the only one."""
    bits = int(np.log2(cfg.codebook_size)) * -(-cfg.sample_rate_hz // cfg.hop_samples)
    return _published(cfg) | {
        "model_type": "encodec",
        "architectures": ["EncodecModel"],
        "norm_type": "weight_norm",
        "normalize": False,
        "chunk_length_s": None,
        "overlap": None,
        "num_lstm_layers": cfg.lstm_layers,
        "target_bandwidths": [cfg.num_codebooks * bits / 1000],
    }


def published_mimi(cfg: SeanetConfig) -> dict[str, Any]:
    """The inverse of `mimi_config`."""
    return _published(cfg) | {
        "model_type": "mimi",
        "architectures": ["MimiModel"],
        "vector_quantization_hidden_dimension": cfg.codebook_dim,
        "num_quantizers": cfg.num_codebooks,
        "num_semantic_quantizers": cfg.semantic_codebooks,
        "upsample_groups": cfg.latent_dim,
        "num_hidden_layers": cfg.transformer_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_heads,
        "head_dim": cfg.latent_dim // cfg.num_heads,
        "intermediate_size": cfg.mlp_dim,
        "sliding_window": cfg.context_frames,
        "layer_scale_initial_scale": cfg.layer_scale,
        "frame_rate": cfg.sample_rate_hz / cfg.hop_samples,
    }


def encodec_entries(cfg: SeanetConfig) -> list[Entry]:
    entries = [
        *_encoder_convs(cfg, "encoder/parts/layers/00", "encoder", normed=True),
        *_decoder_convs(cfg, "decoder/parts/layers/00", "decoder", normed=True),
    ]
    for q in range(cfg.num_codebooks):
        entries.append(Entry("quantizer/codebooks", f"quantizer.layers.{q}.codebook.embed", item=q))
    return entries


def mimi_entries(cfg: SeanetConfig, *, version: int = 5) -> list[Entry]:
    """`version` of the transformers library: 5 has encoder and decoder around what 4 has at the top."""
    encoder, decoder = ("encoder.", "decoder.") if version >= 5 else ("", "")
    seanet = ("encoder.encoder_seanet", "decoder.decoder_seanet") if version >= 5 else ("encoder", "decoder")
    parts = "parts/layers"
    return [
        *_encoder_convs(cfg, f"encoder/{parts}/00", seanet[0], normed=False),
        *_transformer(cfg, f"encoder/{parts}/01", f"{encoder}encoder_transformer"),
        *conv(f"encoder/{parts}/02", f"{encoder}downsample.conv", bias=False),
        *conv(f"decoder/{parts}/00", f"{decoder}upsample.conv", DEPTHWISE, bias=False),
        *_transformer(cfg, f"decoder/{parts}/01", f"{decoder}decoder_transformer"),
        *_decoder_convs(cfg, f"decoder/{parts}/02", seanet[1], normed=False),
        *_split_quantizer(cfg),
    ]


def _encoder_convs(cfg: SeanetConfig, path: str, name: str, *, normed: bool) -> Iterator[Entry]:
    number = 0
    yield from _conv(path, name, number, normed)
    for _ in cfg.ratios:
        for _ in range(cfg.num_residual_layers):
            number += 1
            yield from _residual(cfg, path, name, number, normed)
        number += 2  # an activation lies between
        yield from _conv(path, name, number, normed)
    if cfg.lstm_layers:
        number += 1
        yield from _lstm(cfg, path, name, number)
    yield from _conv(path, name, number + 2, normed)


def _decoder_convs(cfg: SeanetConfig, path: str, name: str, *, normed: bool) -> Iterator[Entry]:
    number = 0
    yield from _conv(path, name, number, normed)
    if cfg.lstm_layers:
        number += 1
        yield from _lstm(cfg, path, name, number)
    for _ in cfg.ratios:
        number += 2
        yield from conv(f"{path}/layers/{number:02d}", f"{name}.layers.{number}.conv", CONV_TRANSPOSE, normed=normed)
        for _ in range(cfg.num_residual_layers):
            number += 1
            yield from _residual(cfg, path, name, number, normed)
    yield from _conv(path, name, number + 2, normed)


def _conv(path: str, name: str, number: int, normed: bool) -> list[Entry]:
    return conv(f"{path}/layers/{number:02d}", f"{name}.layers.{number}.conv", normed=normed)


def _residual(cfg: SeanetConfig, path: str, name: str, number: int, normed: bool) -> Iterator[Entry]:
    path, name = f"{path}/layers/{number:02d}", f"{name}.layers.{number}"
    for inner in (1, 3):
        yield from conv(f"{path}/body/layers/{inner:02d}", f"{name}.block.{inner}.conv", normed=normed)
    if cfg.conv_shortcut:
        yield from conv(f"{path}/shortcut", f"{name}.shortcut.conv", normed=normed)


def _lstm(cfg: SeanetConfig, path: str, name: str, number: int) -> Iterator[Entry]:
    path, name = f"{path}/layers/{number:02d}", f"{name}.layers.{number}.lstm"
    for layer in range(cfg.lstm_layers):
        yield Entry(f"{path}/inputs", f"{name}.weight_ih_l{layer}", LINEAR, item=layer)
        yield Entry(f"{path}/recurrent", f"{name}.weight_hh_l{layer}", LINEAR, item=layer)
        yield Entry(f"{path}/bias", f"{name}.bias_ih_l{layer}", item=layer)


def _transformer(cfg: SeanetConfig, path: str, name: str) -> Iterator[Entry]:
    linear = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    }
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    scales = {"attention_scale": "self_attn_layer_scale", "mlp_scale": "mlp_layer_scale"}
    for i in range(cfg.transformer_layers):
        ours, theirs = f"{path}/layers/{i:02d}", f"{name}.layers.{i}"
        for key, value in linear.items():
            yield Entry(f"{ours}/{key}/kernel", f"{theirs}.{value}.weight", LINEAR)
        for key, value in norms.items():
            yield Entry(f"{ours}/{key}/scale", f"{theirs}.{value}.weight")
            yield Entry(f"{ours}/{key}/bias", f"{theirs}.{value}.bias")
        for key, value in scales.items():
            yield Entry(f"{ours}/{key}", f"{theirs}.{value}.scale")


def _split_quantizer(cfg: SeanetConfig) -> Iterator[Entry]:
    counts = {"semantic": cfg.semantic_codebooks, "acoustic": cfg.num_codebooks - cfg.semantic_codebooks}
    for part, count in counts.items():
        name = f"quantizer.{part}_residual_vector_quantizer"
        if cfg.codebook_dim != cfg.latent_dim:
            yield Entry(f"quantizer/{part}/input/kernel", f"{name}.input_proj.weight", POINTWISE)
            yield Entry(f"quantizer/{part}/output/kernel", f"{name}.output_proj.weight", POINTWISE)
        for q in range(count):
            yield Entry(f"quantizer/{part}/codebooks", f"{name}.layers.{q}.codebook.embed", item=q)


def read_encodec(tensors: Mapping[str, np.ndarray], cfg: SeanetConfig) -> dict[str, Any]:
    """Parameters from EnCodec's tensors. Raises UserError for tensors of another model."""
    statistics = ("inited", "cluster_size", "embed_avg")
    plain = {name: value for name, value in tensors.items() if name.rsplit(".", 1)[-1] not in statistics}
    for name in tensors:
        if ".lstm.bias_hh_l" in name:  # the two biases of a PyTorch LSTM act as their sum
            other = name.replace("bias_hh", "bias_ih")
            plain[other] = tensors[other] + plain.pop(name)
    return read_params(plain, encodec_entries(cfg), abstract_params(cfg))


def write_encodec(params: Mapping[str, Any], cfg: SeanetConfig) -> Tensors:
    """The inverse of `read_encodec`; of the codebooks' statistics only the vectors are kept, at usage 1."""
    tensors = write_tensors(params, encodec_entries(cfg))
    for name, value in list(tensors.items()):
        if ".lstm.bias_ih_l" in name:
            tensors[name.replace("bias_ih", "bias_hh")] = np.zeros_like(value)
        if name.endswith(".codebook.embed"):
            stem = name.removesuffix("embed")
            tensors[f"{stem}embed_avg"] = value.copy()
            tensors[f"{stem}cluster_size"] = np.ones(len(value), np.float32)
            tensors[f"{stem}inited"] = np.ones(1, np.float32)
    return tensors


def read_mimi(tensors: Mapping[str, np.ndarray], cfg: SeanetConfig) -> dict[str, Any]:
    """Parameters from Mimi's tensors, named as by version 4 or 5 of the library."""
    plain: Tensors = {}
    for name, value in tensors.items():
        stem, last = name.rsplit(".", 1)
        if last == "embed_sum":
            plain[f"{stem}.embed"] = value / np.maximum(tensors[f"{stem}.cluster_usage"], 1e-5)[:, None]
        elif last not in ("cluster_usage", "initialized"):
            plain[name] = value
    version = 5 if any(name.startswith("encoder.encoder_seanet.") for name in tensors) else 4
    return read_params(plain, mimi_entries(cfg, version=version), abstract_params(cfg))


def write_mimi(params: Mapping[str, Any], cfg: SeanetConfig) -> Tensors:
    """The inverse of `read_mimi`, in the names of version 5."""
    tensors = write_tensors(params, mimi_entries(cfg))
    for name in [name for name in tensors if name.endswith(".codebook.embed")]:
        value, stem = tensors.pop(name), name.removesuffix("embed")
        tensors[f"{stem}embed_sum"] = value
        tensors[f"{stem}cluster_usage"] = np.ones(len(value), np.float32)
        tensors[f"{stem}initialized"] = np.ones(1, np.float32)
    return tensors
