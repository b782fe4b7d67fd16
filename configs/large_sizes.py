"""The sizes above one accelerator. Numbers of parameters are checked by a test."""

import dataclasses

from omni_jax.model_config import AudioEncoderConfig, DepthConfig, ModelConfig, TransformerConfig, VisionEncoderConfig

# Shared by all: bfloat16, one compiled body a stack of layers, everything computed again in the backward pass.
_TRUNK = TransformerConfig(
    num_layers=48,
    embed_dim=2048,
    num_heads=32,
    num_kv_heads=4,
    head_dim=128,
    rope_sections=(24, 20, 20),
    rope_theta=1_000_000.0,
    num_dense_layers=0,
    num_experts=128,
    experts_per_token=8,
    expert_dim=768,
    moe_dispatch="sorted",
    remat="full",
    scan_layers=True,
)

_OMNI = ModelConfig(
    vocab_size=151_936,
    codebook_size=2048,
    transformer=_TRUNK,
    audio=AudioEncoderConfig(num_mels=128, num_layers=24, embed_dim=1024, num_heads=16, mlp_dim=4096),
    vision=VisionEncoderConfig(
        image_size=448, patch_size=14, num_layers=27, embed_dim=1152, num_heads=16, mlp_dim=4304
    ),
    depth=DepthConfig(num_layers=6, embed_dim=1024, num_heads=16, mlp_dim=4096),
    compute_dtype="bfloat16",
)


def _omni(vocab_size: int = 151_936, **transformer: object) -> ModelConfig:
    return dataclasses.replace(_OMNI, vocab_size=vocab_size, transformer=dataclasses.replace(_TRUNK, **transformer))


LARGE_MODELS = {
    # dense: one host
    "1b": dataclasses.replace(
        _omni(
            65_536,
            num_layers=16,
            num_heads=16,
            num_kv_heads=8,
            mlp_dim=8192,
            num_experts=0,
            experts_per_token=0,
        ),
        audio=AudioEncoderConfig(num_mels=128, num_layers=12, embed_dim=512, num_heads=8, mlp_dim=2048),
        vision=VisionEncoderConfig(
            image_size=224, patch_size=14, num_layers=12, embed_dim=768, num_heads=12, mlp_dim=3072
        ),
        depth=DepthConfig(num_layers=4, embed_dim=512, num_heads=8, mlp_dim=2048),
    ),
    # 8 B, 1 B of them active: a few hosts
    "8b_a1b": _omni(num_layers=24, num_heads=16, num_dense_layers=1, mlp_dim=6144, num_experts=64),
    # 30 B, 3 B active: v5p:4x4x4 and up
    "30b_a3b": _omni(),
    # 400 B, 17 B active: several slices
    "400b_a17b": _omni(
        num_layers=64,
        embed_dim=4096,
        num_kv_heads=8,
        num_dense_layers=3,
        mlp_dim=12_288,
        num_experts=256,
        expert_dim=2048,
        num_shared_experts=1,
        router="sigmoid",
        router_groups=(8, 4),
        router_bias_rate=1e-3,
        expert_buffer=1.5,  # its experts lie on many chips: room for the worst case would be as many times the rows
    ),
}

# Published shapes of text alone, for measurements side by side.
TEXT_MODELS = {
    # arXiv 2401.04088
    "mixtral_8x7b": ModelConfig(
        vocab_size=32_000,
        codebook_size=2048,
        transformer=dataclasses.replace(
            _TRUNK,
            num_layers=32,
            embed_dim=4096,
            num_kv_heads=8,
            num_experts=8,
            experts_per_token=2,
            expert_dim=14_336,
            qk_norm=False,
        ),
        text_only=True,
        compute_dtype="bfloat16",
    ),
    # arXiv 2505.09388
    "qwen3_30b_a3b": ModelConfig(
        vocab_size=151_936, codebook_size=2048, transformer=_TRUNK, text_only=True, compute_dtype="bfloat16"
    ),
}
