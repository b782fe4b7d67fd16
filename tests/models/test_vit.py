import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax.encoder_config import TowerConfig, VisionTowerConfig
from omni_jax.input_pipeline.features import patches
from omni_jax.models.encoders.published import Pictures
from omni_jax.models.encoders.vit import GridConv, ViT, neighbours_of
from tests.models.tiny import MODEL

CONFIG = MODEL.vision
NATIVE = dataclasses.replace(CONFIG, resize="native")
EXACT = 1e-5


def test_the_convolution_sees_neighbours_in_the_picture_not_in_the_pool():
    side = CONFIG.image_size // CONFIG.patch_size
    _, positions = patches(np.zeros((CONFIG.image_size, CONFIG.image_size, 3), np.uint8), CONFIG)
    layer = GridConv(CONFIG, nnx.Rngs(0))
    kernel = np.asarray(layer.kernel[...]).reshape(3, 3, -1)
    x = np.random.default_rng(0).standard_normal((2, side * side, CONFIG.embed_dim)).astype(np.float32)
    grid = np.zeros((2, side + 2, side + 2, CONFIG.embed_dim), np.float32)
    grid[:, positions[:, 0] + 1, positions[:, 1] + 1] = x
    want = [(grid[:, r : r + 3, c : c + 3] * kernel).sum((1, 2)) for r, c in positions]
    np.testing.assert_allclose(layer(x), np.stack(want, axis=1), atol=EXACT)


def test_a_picture_is_the_same_alone_and_in_a_pool():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (3, CONFIG.image_size, CONFIG.image_size, 3), dtype=np.uint8)
    values, positions = zip(*(patches(image, CONFIG) for image in images))
    encoder = ViT(CONFIG, nnx.Rngs(0))
    segments = np.repeat(np.arange(1, 4, dtype=np.int32), CONFIG.num_patches)
    pool = encoder(np.concatenate(values)[None], np.concatenate(positions)[None], segments[None])
    for index in range(3):
        alone = encoder(values[index][None], positions[index][None], np.ones((1, CONFIG.num_patches), np.int32))
        part = pool[:, index * CONFIG.num_patches : (index + 1) * CONFIG.num_patches]
        np.testing.assert_allclose(part, alone, atol=EXACT)


def pool_of(images, config):
    """Patches, positions and segments of a pool."""
    values, positions = zip(*(patches(image, config) for image in images))
    segments = [np.where(at[:, 0] >= 0, number, 0) for number, at in enumerate(positions, start=1)]
    return (
        np.concatenate(values)[None],
        np.concatenate(positions)[None],
        np.concatenate(segments)[None].astype(np.int32),
    )


def pictures_of_many_shapes():
    rng = np.random.default_rng(2)
    return [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in [(8, 32), (16, 16), (5, 3), (60, 20)]]


def test_the_convolution_knows_the_shape_of_every_picture():
    layer = GridConv(CONFIG, nnx.Rngs(0))
    kernel = np.asarray(layer.kernel[...]).reshape(3, 3, -1)
    _, positions, segments = pool_of(pictures_of_many_shapes(), NATIVE)
    positions, real = positions.reshape(4, -1, 2), segments.reshape(4, -1) > 0
    x = np.random.default_rng(0).standard_normal((*real.shape, CONFIG.embed_dim)).astype(np.float32)
    mixed = np.asarray(layer(x, neighbours_of(jnp.asarray(positions))))
    for picture, at, there, result in zip(x, positions, real, mixed, strict=True):
        grid = np.zeros((*(at.max(0) + 3), CONFIG.embed_dim), np.float32)
        grid[at[there, 0] + 1, at[there, 1] + 1] = picture[there]
        want = [(grid[r : r + 3, c : c + 3] * kernel).sum((0, 1)) for r, c in at[there]]
        np.testing.assert_allclose(result[there], want, atol=EXACT)
        assert not result[~there].any()


def test_a_whole_square_is_the_same_in_native_form():
    image = np.random.default_rng(3).integers(0, 255, (CONFIG.image_size, CONFIG.image_size, 3), dtype=np.uint8)
    native, letterbox = ViT(NATIVE, nnx.Rngs(0)), ViT(CONFIG, nnx.Rngs(0))
    for name in ("rows", "columns"):
        getattr(native, name)[...] = jnp.tile(getattr(letterbox, name)[...], (2, 1))
    native.patch, native.layers, native.norm = letterbox.patch, letterbox.layers, letterbox.norm
    np.testing.assert_allclose(native(*pool_of([image], NATIVE)), letterbox(*pool_of([image], CONFIG)), atol=EXACT)


def test_room_that_a_picture_does_not_fill_changes_nothing():
    images = pictures_of_many_shapes()
    tower = TowerConfig(num_layers=2, embed_dim=16, num_heads=2, mlp_dim=24)
    published = VisionTowerConfig(tower, patch_size=4, grid=3, clip=True)
    for encoder in (ViT(NATIVE, nnx.Rngs(0)), Pictures(dataclasses.replace(NATIVE, tower=published), nnx.Rngs(0))):
        values, positions, segments = pool_of(images, NATIVE)
        real = segments > 0
        pool = np.asarray(encoder(values, positions, segments))
        changed = np.asarray(encoder(np.where(real[..., None], values, 7.0).astype(np.float32), positions, segments))
        np.testing.assert_allclose(pool[real], changed[real], atol=EXACT)
        assert np.isfinite(pool).all()
        alone = [
            part.reshape(len(images), CONFIG.num_patches, *part.shape[2:]) for part in (values, positions, segments)
        ]
        np.testing.assert_allclose(np.asarray(encoder(*alone)).reshape(pool.shape)[real], pool[real], atol=EXACT)


def test_a_published_encoder_sees_a_picture_in_its_own_grid():
    tower = TowerConfig(num_layers=2, embed_dim=16, num_heads=2, mlp_dim=24)
    encoder = Pictures(dataclasses.replace(NATIVE, tower=VisionTowerConfig(tower, 4, grid=3)), nnx.Rngs(0))
    values, positions, segments = pool_of(pictures_of_many_shapes()[:1], NATIVE)
    assert (positions.max((0, 1)) + 1).tolist() == [2, 8] and segments.all()
    sizes = np.broadcast_to(np.asarray([2, 8], np.int32), positions.shape)
    want = encoder.tower(values, positions, sizes, segments)
    np.testing.assert_allclose(encoder(values, positions, segments), want, atol=EXACT)
