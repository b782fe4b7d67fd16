"""Discriminators, losses, balancer and quantiser give PyTorch's values and gradients (fixture: published_losses.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.models.codec import published_discriminators as discriminators
from omni_jax.nn.quantize import quantize
from omni_jax.training import recipe_losses
from omni_jax.training.balancer import balance, init_balancer
from tests.training import published_losses
from tests.training.published_losses import BALANCER_WEIGHTS, DIM, PERIOD, WINDOW

TOLERANCE = {"rtol": 2e-4, "atol": 1e-6}
RNGS = nnx.Rngs(0)
PARTS = {
    "period": lambda: discriminators.PeriodDiscriminator(PERIOD, DIM, rngs=RNGS),
    "scale": lambda: discriminators.ScaleDiscriminator(1, DIM, rngs=RNGS),
    "stft": lambda: discriminators.StftDiscriminator(WINDOW, DIM, rngs=RNGS),
}
BOTH_SIDES = {
    "hinge_discriminator": recipe_losses.hinge_discriminator,
    "hinge_generator": lambda real, fake: recipe_losses.hinge_generator(fake),
    "least_squares_discriminator": recipe_losses.least_squares_discriminator,
    "least_squares_generator": lambda real, fake: recipe_losses.least_squares_generator(fake),
    "feature": recipe_losses.feature_loss,
    "relative_feature": recipe_losses.relative_feature_loss,
}


@pytest.fixture(scope="module")
def golden():
    with np.load(published_losses.GOLDEN) as arrays:
        return dict(arrays)


def ours(weight, one_dimensional):
    """[out, in, *kernel] to [*kernel, in, out]; the period discriminator's kernels lose their dimension of size 1."""
    weight = weight[..., 0] if one_dimensional and weight.ndim == 4 else weight
    return np.moveaxis(weight, (0, 1), (-1, -2))


def with_weights(kind, module):
    """The effective kernels are the fixture's: direction and length of each."""
    convs = [*module.stack.convs.values(), module.judge]
    for conv, (weight, bias) in zip(convs, published_losses.make_weights(kind), strict=True):
        kernel = ours(weight, kind != "stft")
        conv.direction[...] = jnp.asarray(kernel)
        conv.length[...] = jnp.asarray(np.sqrt(np.square(kernel).sum(axis=tuple(range(kernel.ndim - 1)))))
        conv.bias[...] = jnp.asarray(bias)
    return nnx.split(module)


@pytest.mark.parametrize("kind", PARTS)
def test_discriminator_and_losses(golden, kind):
    graphdef, params = with_weights(kind, PARTS[kind]())
    real, fake = (jnp.asarray(wav) for wav in published_losses.inputs())

    @jax.jit
    def everything(fake):
        def losses(fake):
            judge = nnx.merge(graphdef, params)
            judged = (judge(real),), (judge(fake),)
            return {name: loss(*judged) for name, loss in BOTH_SIDES.items()}

        return losses(fake), jax.jacrev(losses)(fake)

    values, gradients = everything(fake)
    for name in BOTH_SIDES:
        np.testing.assert_allclose(values[name], golden[f"{kind}/{name}"], **TOLERANCE)
        np.testing.assert_allclose(gradients[name], golden[f"{kind}/{name}/wav"], **TOLERANCE)


def test_weight_norm_gradient_is_the_kernels_seen_along_the_direction(golden):
    """PyTorch's gradient of the whole kernel, projected: the length takes what lies along, the direction the rest."""
    module = PARTS["stft"]()
    graphdef, params = with_weights("stft", module)
    real, fake = (jnp.asarray(wav) for wav in published_losses.inputs())

    @jax.jit
    @jax.grad
    def gradient(params):
        judge = nnx.merge(graphdef, params)
        return recipe_losses.hinge_discriminator((judge(real),), (judge(fake),))

    found = nnx.to_pure_dict(gradient(params))["stack"]["convs"]["00"]
    kernel = ours(published_losses.make_weights("stft")[0][0], False)
    whole = ours(golden["stft/hinge_discriminator/kernel"], False)
    length = np.sqrt(np.square(kernel).sum((0, 1, 2)))
    along = (whole * kernel / length).sum((0, 1, 2))
    np.testing.assert_allclose(found["length"], along, **TOLERANCE)
    np.testing.assert_allclose(found["direction"], whole - along * kernel / length, rtol=1e-3, atol=1e-5)


def test_balancer(golden):
    matrix, state = jnp.asarray(golden["balancer/matrix"]), init_balancer(2)
    for step in range(3):
        x, target = golden[f"balancer/{step}/x"], golden[f"balancer/{step}/target"]
        wav, pull_back = jax.vjp(lambda matrix, x=x: x @ matrix, matrix)
        gradients = {
            "time": jax.grad(lambda wav, target=target: jnp.mean(jnp.abs(wav - target)))(wav),
            "square": jax.grad(lambda wav, target=target: jnp.mean(jnp.square(100 * (wav - target))))(wav),
        }
        total, state = balance(gradients, BALANCER_WEIGHTS, state)
        np.testing.assert_allclose(pull_back(total)[0], golden[f"balancer/{step}/gradient"], **TOLERANCE)


def test_residual_quantiser(golden):
    case = {name.split("/")[1]: value for name, value in golden.items() if name.startswith("quantizer/")}

    def loss(latents):
        out = quantize(latents[None], jnp.asarray(case["books"]))
        return jnp.sum(out.vectors[0] * case["direction"]) + out.commit_loss

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(case["latents"]))
    np.testing.assert_allclose(value, case["loss"], **TOLERANCE)
    np.testing.assert_allclose(gradient, case["gradient"], **TOLERANCE)


def test_reconstruction_losses_are_zero_only_for_the_same_sound():
    real, fake = (jnp.asarray(np.tile(wav, 2)) for wav in published_losses.inputs())
    losses = {
        "time": recipe_losses.time_loss,
        "mel": lambda a, b: recipe_losses.mel_loss(a, b, 24_000, ((128, 20), (256, 40))),
        "multi_scale": lambda a, b: recipe_losses.multi_scale_loss(a, b, 24_000, (64, 256)),
    }
    for loss in losses.values():
        assert float(loss(real, real)) < 1e-5 < 0.05 < float(loss(real, fake))
        gradient = jax.grad(loss, argnums=1)(real, fake)
        assert np.isfinite(gradient).all() and np.asarray(gradient).any()
        assert np.isfinite(jax.grad(loss, argnums=1)(jnp.zeros_like(real), jnp.zeros_like(real))).all()
