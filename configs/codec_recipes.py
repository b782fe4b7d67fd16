"""Published recipes for codecs and vocoders, with their losses, discriminators and optimizers.

python -m omni_jax.train --config=configs/codec_recipes.py:encodec_tiny --workdir=runs/encodec

Recipes: encodec, dac, mimi, hifigan, vocos; `_tiny` behind a name is the same recipe, shrunk.
Hardware: 2 CPU cores, 5 CPU-minutes for the tiny ones; the others are for accelerators and have not been trained yet.
Expected: each tiny one halves its held-out mel distance; docs/codecs.md has the figures.
"""

import dataclasses

from ml_collections import ConfigDict

from configs.sizes import recipe_config
from omni_jax.codec_config import (
    DAC_24KHZ,
    HIFIGAN_V1,
    MIMI,
    DacConfig,
    DiscriminatorConfig,
    HifiGanConfig,
    SeanetConfig,
    VocosConfig,
)
from omni_jax.config import DataConfig, OptimizerConfig, TrainingConfig
from omni_jax.errors import ConfigError
from omni_jax.recipe_config import LossWeights, RecipeConfig

STFT = DiscriminatorConfig(stft_windows=(1024, 2048, 512, 256, 128))
PERIODS = (2, 3, 5, 7, 11)
DAC_LADDER = {"mel_windows": (32, 64, 128, 256, 512, 1024, 2048), "mel_bands": (5, 10, 20, 40, 80, 160, 320)}

RECIPES = {
    # AudioCraft, config/solver/compression/default.yaml
    "encodec": RecipeConfig(
        seanet=SeanetConfig(pad_mode="constant", conv_shortcut=False),
        segment_samples=24_000,
        weights=LossWeights(time=0.1, multi_scale=2.0, adversarial=4.0, feature=4.0, commit=1.0),
        balanced=True,
        discriminator=STFT,
        quantizer_dropout=1.0,
    ),
    # descript-audio-codec, conf/base.yml
    "dac": RecipeConfig(
        dac=DAC_24KHZ,
        segment_samples=8_960,
        weights=LossWeights(mel=15.0, adversarial=1.0, feature=2.0, commit=0.25, codebook=1.0),
        **DAC_LADDER,
        discriminator=DiscriminatorConfig(periods=PERIODS, band_windows=(2048, 1024, 512)),
        adversarial="least_squares",
        discriminator_learning_rate=1e-4,
        discriminator_clip_norm=10.0,
        learning_rate_decay=0.999996,
        quantizer_dropout=0.5,
    ),
    # arXiv:2410.00037, section 3.3: adversarial and feature losses alone. Phones stand in for the distilled WavLM;
    # --config.recipe.weights.distill=1 --config.recipe.teacher=DIR distils a published Whisper.
    "mimi": RecipeConfig(
        seanet=MIMI,
        segment_samples=288_000,
        weights=LossWeights(adversarial=4.0, feature=4.0, commit=1.0, phone=1.0),
        balanced=True,
        discriminator=STFT,
        discriminator_learning_rate=8e-4,
        quantizer_dropout=1.0,
        unquantized=0.5,
    ),
    # hifi-gan, config_v1.json; its rate falls by 0.999 an epoch of 809 steps
    "hifigan": RecipeConfig(
        hifigan=HIFIGAN_V1,
        segment_samples=8_192,
        weights=LossWeights(mel=45.0, adversarial=1.0, feature=2.0),
        mel_windows=(1024,),
        mel_bands=(80,),
        natural_log=True,
        discriminator=DiscriminatorConfig(periods=PERIODS, scales=3),
        adversarial="least_squares",
        discriminator_learning_rate=2e-4,
        learning_rate_decay=0.999 ** (1 / 809),
    ),
    # vocos, configs/vocos.yaml
    "vocos": RecipeConfig(
        vocos=VocosConfig(),
        segment_samples=16_384,
        weights=LossWeights(mel=45.0, adversarial=1.0, feature=1.0),
        mel_windows=(1024,),
        mel_bands=(100,),
        natural_log=True,
        discriminator=DiscriminatorConfig(periods=PERIODS, band_windows=(2048, 1024, 512)),
        adversarial="clamped_hinge",
        spectrogram_weight=0.1,
        discriminator_learning_rate=5e-4,
        learning_rate_decay=0.0,
    ),
}

# Learning rate, betas, weight decay and clipping of the generator; rows and steps.
OPTIMIZERS = {
    "encodec": ({"learning_rate": 3e-4, "beta1": 0.5, "beta2": 0.9, "weight_decay": 0.0}, 64, 400_000),
    "dac": ({"learning_rate": 1e-4, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.01}, 72, 400_000),
    "mimi": ({"learning_rate": 8e-4, "beta1": 0.5, "beta2": 0.9, "weight_decay": 0.05}, 128, 4_000_000),
    "hifigan": ({"learning_rate": 2e-4, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.01}, 16, 2_500_000),
    "vocos": (
        {"learning_rate": 5e-4, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.01, "final_fraction": 0.0},
        16,
        1_000_000,
    ),
}

# What the shrunk recipes have in place of the published shapes; losses and their weights stay.
TINY = {
    "encodec": {
        "seanet": dataclasses.replace(
            RECIPES["encodec"].seanet, num_filters=8, latent_dim=64, codebook_dim=64, num_codebooks=8, codebook_size=256
        ),
        "segment_samples": 9_600,
        "discriminator": DiscriminatorConfig(dim=4, stft_windows=(1024, 256)),
    },
    "dac": {
        "dac": DacConfig(
            sample_rate_hz=24_000,
            encoder_dim=8,
            strides=(2, 4, 5, 8),
            decoder_dim=128,
            num_codebooks=8,
            codebook_size=256,
        ),
        "segment_samples": 8_960,
        "discriminator": DiscriminatorConfig(dim=2, periods=(3, 7), band_windows=(1024,)),
    },
    "mimi": {
        "seanet": dataclasses.replace(
            MIMI,
            num_filters=8,
            latent_dim=128,
            num_heads=4,
            mlp_dim=256,
            transformer_layers=2,
            num_codebooks=8,
            codebook_size=256,
            codebook_dim=64,
        ),
        "segment_samples": 19_200,
        "discriminator": DiscriminatorConfig(dim=4, stft_windows=(1024, 256)),
    },
    "hifigan": {
        "hifigan": HifiGanConfig(sample_rate_hz=24_000, initial_dim=64),
        "discriminator": DiscriminatorConfig(dim=2, periods=(3, 7), scales=1),
    },
    "vocos": {
        "vocos": VocosConfig(dim=128, hidden_dim=384, num_layers=4),
        "segment_samples": 8_192,
        "discriminator": DiscriminatorConfig(dim=2, periods=(3, 7), band_windows=(1024,)),
    },
}
# Learning rate, its warmup, and steps: some hundred steps, as many as five CPU-minutes hold, need larger rates than
# some hundred thousand. Residual sums of centred convolutions bear less, and want more time to get there.
TINY_RUNS = {
    "encodec": (2e-3, 20, 600),
    "dac": (1e-3, 60, 320),
    "mimi": (2e-3, 20, 300),
    "hifigan": (1e-3, 20, 300),
    "vocos": (2e-3, 20, 600),
}
TINY_DISCRIMINATOR_RATE = 5e-4


def get_config(name: str = "encodec_tiny") -> ConfigDict:
    """`name`: a recipe, or with `_tiny` behind it the shrunk one."""
    base, tiny = name.removesuffix("_tiny"), name.endswith("_tiny")
    if base not in RECIPES:
        raise ConfigError(
            f"unknown recipe {name!r}: want one of {', '.join(RECIPES)}, or one of them with _tiny behind it"
        )
    recipe, (optimizer, rows, steps) = RECIPES[base], OPTIMIZERS[base]
    if tiny:
        rate, warmup, steps = TINY_RUNS[base]
        changes = TINY[base] | {"discriminator_learning_rate": TINY_DISCRIMINATOR_RATE, "learning_rate_decay": 0.0}
        recipe = dataclasses.replace(recipe, **changes)
        optimizer |= {"learning_rate": rate, "warmup_steps": warmup, "final_fraction": 0.1, "spike_factor": 0.0}
        rows = 8
    return recipe_config(
        name,
        data=DataConfig(rows=rows),
        optimizer=OptimizerConfig(**({"warmup_steps": 0, "spike_factor": 10.0} | optimizer), clip_norm=1e3),
        recipe=recipe,
        training=TrainingConfig(steps=steps, log_every=20 if tiny else 100, checkpoint_every=steps if tiny else 5_000),
    )
