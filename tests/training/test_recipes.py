"""Published recipes: each learns on all sides, on 8 devices as on one, and a resumed run is the uninterrupted one."""

import dataclasses
import functools
import os

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import codec_recipes
from omni_jax.checkpoint import Checkpointer, CheckpointError, load_codec, load_params
from omni_jax.codec_config import DacConfig, DiscriminatorConfig, HifiGanConfig, VocosConfig
from omni_jax.config import MeshConfig, resolve
from omni_jax.errors import ConfigError
from omni_jax.input_pipeline.codec_loader import CodecBatch, num_phone_frames
from omni_jax.parallel.mesh import make_mesh
from omni_jax.recipe_config import RecipeConfig
from omni_jax.training import codec_stage, recipe_stage
from omni_jax.training.codec_program import compile_codec_step
from omni_jax.training.recipe_step import RecipeOptimizers, make_recipe_step
from omni_jax.training.saving import Run, Saver

SLOW = os.environ.get("OMNI_JAX_SLOW") == "1"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
SHAPE = {"num_filters": 2, "ratios": (4, 2), "latent_dim": 8, "num_codebooks": 3, "codebook_size": 8, "codebook_dim": 4}
STFT, ROWS = DiscriminatorConfig(dim=2, stft_windows=(128,)), 8
SMALL = {
    "encodec": {"seanet": SHAPE, "segment_samples": 480, "discriminator": STFT, "scale_windows": (64, 128)},
    "dac": {
        "dac": DacConfig(24_000, encoder_dim=2, strides=(2, 5), decoder_dim=8, num_codebooks=3, codebook_size=8),
        "segment_samples": 480,
        "mel_windows": (64, 128),
        "mel_bands": (5, 10),
        "discriminator": DiscriminatorConfig(dim=1, periods=(3,), band_windows=(128,)),
    },
    "mimi": {
        "seanet": SHAPE | {"num_heads": 2, "mlp_dim": 16, "transformer_layers": 1, "ratios": (8, 6, 5, 4)},
        "segment_samples": 3_840,
        "discriminator": STFT,
    },
    "hifigan": {
        "hifigan": HifiGanConfig(24_000, 8, 8, (8, 4), (16, 8), (3,), ((1, 3),)),
        "segment_samples": 512,
        "mel_windows": (128,),
        "mel_bands": (8,),
        "discriminator": DiscriminatorConfig(dim=1, periods=(3,), scales=1),
    },
    "vocos": {
        "vocos": VocosConfig(24_000, 8, 8, 16, 1, 3, 128, 32),
        "segment_samples": 512,
        "mel_windows": (128,),
        "mel_bands": (8,),
        "discriminator": DiscriminatorConfig(dim=1, periods=(3,), band_windows=(128,)),
        "adversarial_start_step": 1,
    },
}


def small(name):
    """The shipped recipe with its losses, made to compile in seconds."""
    config, changes = resolve(codec_recipes.get_config(f"{name}_tiny")), dict(SMALL[name])
    if "seanet" in changes:
        changes["seanet"] = dataclasses.replace(config.recipe.seanet, **changes["seanet"])
    recipe = dataclasses.replace(config.recipe, kmeans_batches=2, num_phones=4, **changes)
    training = dataclasses.replace(config.training, steps=2, log_every=1, checkpoint_every=100, tensorboard=False)
    return dataclasses.replace(config, recipe=recipe, training=training)


class ToneLoader:
    """Tones of random pitch in noise; the n-th batch is a function of n."""

    def __init__(self, recipe):
        self.recipe, self.count = recipe, 0

    def __next__(self) -> CodecBatch:
        rng, length = np.random.default_rng(self.count), self.recipe.segment_samples
        self.count += 1
        phase = 2 * np.pi * rng.uniform(100, 2000, (ROWS, 1)) * np.arange(length) / 24_000
        wav = rng.uniform(0.1, 0.4, (ROWS, 1)) * np.sin(phase) + 0.01 * rng.standard_normal((ROWS, length))
        phones = rng.integers(0, 4, (ROWS, num_phone_frames(length, 24_000)))
        return CodecBatch(wav.astype(np.float32), phones.astype(np.int32))

    def get_state(self):
        return self.count

    def set_state(self, state):
        self.count = state


def compiled(config, optimizers, num_devices, teacher=None):
    """The fresh state and the step on so many devices."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:num_devices])
    state = jax.jit(functools.partial(recipe_stage.init_recipe_state, config, optimizers, teacher=teacher))(0)
    state = jax.device_put(jax.device_get(state._replace(key=None)), NamedSharding(mesh, PartitionSpec()))
    state = state._replace(key=jax.device_put(jax.random.key(0), NamedSharding(mesh, PartitionSpec())))
    return state, compile_codec_step(config, mesh, make_recipe_step(config, optimizers, teacher), state)


def assert_learned(before, after, metrics):
    for name, value in metrics.items():
        assert np.isfinite(value), name
    assert float(metrics["skipped_steps"]) == 0
    old, new = before.opt_state, after.opt_state
    for part in ("live", "discriminator_params"):
        unchanged = [
            jax.tree_util.keystr(path)
            for (path, a), b in zip(jax.tree.leaves_with_path(getattr(old, part)), jax.tree.leaves(getattr(new, part)))
            if np.array_equal(a, b)
        ]
        # Where the hinge is open on both sides, what pulls real and generated apart cancels in the last bias.
        assert not [path for path in unchanged if not path.endswith("['judge']['bias']")], f"{part}: {unchanged}"
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(before.params)):
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in SMALL if SLOW or name in ("mimi", "vocos")])
def test_a_recipe_trains_all_its_parts(name):
    config, loader = small(name), ToneLoader(small(name).recipe)
    optimizers = recipe_stage.make_optimizers(config)
    state, step = compiled(config, optimizers, 8)
    state = recipe_stage.kmeans_start(config, loader, 0, state)
    before = jax.device_get(state._replace(key=None))
    for _ in range(2):
        state, metrics = step(state, next(loader))
    assert_learned(before, jax.device_get(state._replace(key=None)), jax.device_get(metrics))


@pytest.mark.parametrize("name", SMALL if SLOW else ["encodec"])
def test_eight_devices_and_one_make_the_same_updates(name):
    """Generator, discriminators, codebooks and balancer, by plain gradient descent, which moves by gradients and not by
    their signs."""
    config = small(name)
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, adversarial_start_step=0))
    optimizers, results = RecipeOptimizers(optax.sgd(0.1), optax.sgd(0.1)), []
    for count in (8, 1):
        state, step = compiled(config, optimizers, count)
        loader = ToneLoader(config.recipe)
        state = recipe_stage.kmeans_start(config, loader, 0, state)
        before = jax.device_get(state.opt_state)
        state, metrics = step(state, next(loader))
        after = jax.device_get(state.opt_state)
        updates = jax.tree.map(lambda a, b: a - b, after.live, before.live)
        judges = jax.tree.map(lambda a, b: a - b, after.discriminator_params, before.discriminator_params)
        results.append((updates, judges, after.codebooks, after.balancer, jax.device_get(metrics)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, **TOLERANCE), *results)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    config = small("vocos")
    optimizers, loader = recipe_stage.make_optimizers(config), ToneLoader(config.recipe)
    state, step = compiled(config, optimizers, 8)
    state, _ = step(state, next(loader))
    checkpointer = Checkpointer(tmp_path)
    Saver(Run(config, tmp_path, checkpointer), state.key).save(state, 1, loader.get_state(), {})
    checkpointer.close()
    state, _ = step(state, next(loader))
    resumed = codec_stage.train_codec_on(ToneLoader(config.recipe), config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, resumed.opt_state, state.opt_state)
    saved, params = load_params(tmp_path)
    assert saved == config
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.params))
    with pytest.raises(CheckpointError, match="holds a codec of recipe vocos_tiny"):
        load_codec(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seanet": None}, "has 0 generators"),
        ({"adversarial": "wgan"}, "recipe.adversarial='wgan'"),
        ({"mel_windows": (1024,)}, r"recipe.mel_bands=\(\): want one for each"),
        ({"adversarial_start_step": 5}, "the balancer's averages"),
        ({"segment_samples": 9_601}, "want a multiple of the generator's hop of 320"),
        ({"weights": dataclasses.replace(codec_recipes.RECIPES["encodec"].weights, phone=1.0)}, "semantic_codebooks"),
        ({"teacher": "whisper"}, "only there"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(changes, message):
    recipe = resolve(codec_recipes.get_config("encodec_tiny")).recipe
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(recipe, **changes)


def test_an_unknown_recipe_is_named():
    with pytest.raises(ConfigError, match="unknown recipe 'soundstream': want one of encodec, dac"):
        codec_recipes.get_config("soundstream")
    assert isinstance(resolve(codec_recipes.get_config("hifigan")).recipe, RecipeConfig)
