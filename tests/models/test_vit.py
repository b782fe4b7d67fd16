import numpy as np
from flax import nnx

from omni_jax.input_pipeline.features import patches
from omni_jax.models.encoders.vit import GridConv, ViT
from tests.models.tiny import MODEL

CONFIG = MODEL.vision
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
