"""The sizes that every stage shares, and the assembly of a stage's ConfigDict from them."""

import dataclasses

from ml_collections import ConfigDict

from configs.large_sizes import LARGE_MODELS, TEXT_MODELS
from omni_jax.codec_config import CodecConfig
from omni_jax.config import Config
from omni_jax.config_dict import to_dict
from omni_jax.errors import ConfigError
from omni_jax.model_config import (
    AudioEncoderConfig,
    DepthConfig,
    ModelConfig,
    TransformerConfig,
    TrunkVariant,
    VisionEncoderConfig,
    load_model_config,
)

MODELS = {
    # 5.8 M parameters: trains in minutes on a laptop's CPU
    "tiny": ModelConfig(text_posteriors=True, tie_text_head=True),
    # 4.5 M: small enough to ship with the repository, in data/voice; its schedules take hours on a laptop's CPU.
    "voice": ModelConfig(
        transformer=TransformerConfig(embed_dim=160, head_dim=40, rope_sections=(10, 5, 5), expert_dim=144),
        depth=DepthConfig(embed_dim=96, mlp_dim=192),
        text_posteriors=True,
        tie_text_head=True,
    ),
    # 248 M: one GPU. Traced by a test, not yet trained.
    "small": ModelConfig(
        vocab_size=8192,
        codebook_size=2048,
        transformer=TransformerConfig(
            num_layers=12,
            embed_dim=768,
            num_heads=12,
            num_kv_heads=4,
            head_dim=64,
            rope_sections=(16, 8, 8),
            mlp_dim=2048,
            num_experts=8,
            expert_dim=512,
            moe_dispatch="sorted",
            remat="full",
            scan_layers=True,
        ),
        audio=AudioEncoderConfig(num_layers=8, embed_dim=384, num_heads=6, mlp_dim=1536),
        vision=VisionEncoderConfig(image_size=128, num_layers=8, embed_dim=384, num_heads=6, mlp_dim=1536),
        depth=DepthConfig(num_layers=4, embed_dim=512, num_heads=8, mlp_dim=1536),
        text_posteriors=True,
        compute_dtype="bfloat16",
    ),
    **LARGE_MODELS,
}

LAPTOP = ("tiny", "voice")  # sizes that are batched for two CPU cores

CODECS = {
    "tiny": CodecConfig(),
    "voice": CodecConfig(),
    "small": CodecConfig(
        codebook_size=2048,
        latent_dim=128,
        encoder_dim=384,
        encoder_layers=(4, 4),
        decoder_dim=512,
        decoder_layers=(4, 6, 2),
    ),
}


CODECS |= {size: CODECS["small"] for size in (*LARGE_MODELS, *TEXT_MODELS)}


def check_size(size: str, stage: str) -> None:
    """Raises ConfigError for a size that there is not, or not for this stage."""
    sizes = [*MODELS, *TEXT_MODELS] if stage == "pretrain" else [*MODELS]
    if size not in sizes:
        raise ConfigError(
            f"unknown size {size!r}: want one of {', '.join(sizes)}, as in --config=configs/{stage}.py:tiny"
        )


def model_of(size: str, stage: str) -> ModelConfig:
    """The model of a size, or the one in the model.json of an imported or assembled workdir."""
    if size.endswith(".json"):
        return load_model_config(size)
    check_size(size, stage)
    return (MODELS | TEXT_MODELS)[size]


def omni_config(stage: str, size: str, **groups: object) -> ConfigDict:
    """A ConfigDict of an omni stage. `groups`: the config classes in which the stage differs from the defaults.

    The codec's configuration is not in it: it is read from training.codec_from.
    """
    model = model_of(size, stage)
    codec = dataclasses.replace(CodecConfig(), num_codebooks=model.num_codebooks, codebook_size=model.codebook_size)
    groups |= {"data": groups["data"].for_pictures(model.vision.num_patches)}
    values = to_dict(Config(stage=stage, size=size, model=model, codec=codec, **groups))
    del values["codec_training"], values["codec"]
    if model.transformer.variant == TrunkVariant():
        del values["model"]["transformer"]["variant"]
    return _config_dict(values)


def codec_config(size: str, **groups: object) -> ConfigDict:
    """A ConfigDict of the codec stage; the model that will speak its codes is not in it."""
    check_size(size, "codec")
    config = Config(stage="codec", size=size, model=MODELS[size], codec=CODECS[size], **groups)
    values = to_dict(config)
    del values["loss"], values["model"]
    return _config_dict(values)


def recipe_config(name: str, **groups: object) -> ConfigDict:
    """A ConfigDict of the codec stage with a published recipe in place of `spectral`."""
    values = to_dict(Config(stage="codec", size=name, **groups))
    for group in ("loss", "model", "codec", "codec_training"):
        del values[group]
    return _config_dict(values)


def _config_dict(values: dict) -> ConfigDict:
    return ConfigDict({name: _tuples(value) for name, value in values.items()})


def _tuples(value: object) -> object:
    """ConfigDict overrides keep a tuple a tuple; `to_dict` made lists of them for JSON."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
