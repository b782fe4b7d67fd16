"""Discriminators, losses, balancer and quantiser give PyTorch's values and gradients (fixture: published_losses.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.models.codec import published_discriminators as discriminators
from omni_jax.nn.factorised import Factors, quantize_factorised
from omni_jax.nn.quantize import quantize
from omni_jax.training import codec_losses, recipe_losses
from omni_jax.training.balancer import balance, init_balancer
from tests.training import published_losses
from tests.training.published_losses import BALANCER_WEIGHTS, DIM, PERIOD, WINDOW

TOLERANCE = {"rtol": 2e-4, "atol": 1e-6}
RNGS = nnx.Rngs(0)
PARTS = {
    "period": lambda: discriminators.PeriodDiscriminator(PERIOD, DIM, rngs=RNGS),
    "scale": lambda: discriminators.ScaleDiscriminator(1, DIM, rngs=RNGS),
    "stft": lambda: discriminators.StftDiscriminator(WINDOW, DIM, rngs=RNGS),
    "bands": lambda: discriminators.BandsDiscriminator(WINDOW, DIM, rngs=RNGS),
}
ONE_DIMENSIONAL = ("period", "scale")
BOTH_SIDES = {
    "hinge_discriminator": recipe_losses.hinge_discriminator,
    "hinge_generator": lambda real, fake: recipe_losses.hinge_generator(fake),
    "clamped_hinge_generator": lambda real, fake: codec_losses.generator_hinge_loss(fake),
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
    stacks = module.stacks.values() if kind == "bands" else [module.stack]
    convs = [*(conv for stack in stacks for conv in stack.convs.values()), module.judge]
    for conv, (weight, bias) in zip(convs, published_losses.make_weights(kind), strict=True):
        kernel = ours(weight, kind in ONE_DIMENSIONAL)
        conv.direction[...] = jnp.asarray(kernel)
        conv.length[...] = jnp.asarray(np.sqrt(np.square(kernel).sum(axis=tuple(range(kernel.ndim - 1)))))
        conv.bias[...] = jnp.asarray(bias)
    return nnx.split(module)


def first_conv(kind, params):
    stack = params["stacks"]["00"] if kind == "bands" else params["stack"]
    return stack["convs"]["00"]


@pytest.mark.parametrize("kind", PARTS)
def test_discriminator_and_losses(golden, kind):
    """Weight norm's gradient is the whole kernel's, seen along the direction: the length takes what lies along it and
    the direction the rest."""
    graphdef, params = with_weights(kind, PARTS[kind]())
    real, fake = (jnp.asarray(wav) for wav in published_losses.inputs())

    @jax.jit
    def everything(fake, params):
        def losses(fake, params):
            both = nnx.merge(graphdef, params)(jnp.concatenate([real, fake]))  # half the program of one after the other
            sides = [(jax.tree.map(lambda x, i=i: jnp.split(x, 2)[i], both),) for i in range(2)]
            return {name: loss(*sides) for name, loss in BOTH_SIDES.items()}

        return losses(fake, params), jax.jacrev(losses, argnums=(0, 1))(fake, params)

    values, gradients = everything(fake, params)
    kernel = ours(published_losses.make_weights(kind)[0][0], kind in ONE_DIMENSIONAL)
    axes = tuple(range(kernel.ndim - 1))
    length = np.sqrt(np.square(kernel).sum(axes))
    for name in BOTH_SIDES:
        np.testing.assert_allclose(values[name], golden[f"{kind}/{name}"], **TOLERANCE)
        of_wav, of_params = gradients[name]
        np.testing.assert_allclose(of_wav, golden[f"{kind}/{name}/wav"], **TOLERANCE)
        found = first_conv(kind, nnx.to_pure_dict(of_params))
        whole = ours(golden[f"{kind}/{name}/kernel"], kind in ONE_DIMENSIONAL)
        along = (whole * kernel / length).sum(axes)
        np.testing.assert_allclose(found["length"], along, rtol=1e-3, atol=1e-5)
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


def test_factorised_quantiser(golden):
    """With rows that use one, three and two of the codebooks, as DAC's quantiser dropout leaves them."""
    case = {name.removeprefix("factorised/"): jnp.asarray(value) for name, value in golden.items()}
    factors = Factors(*(case[name] for name in Factors._fields))

    def loss(latents, factors):
        out = quantize_factorised(latents, factors, jnp.asarray(published_losses.NUM_ACTIVE))
        return jnp.sum(out.vectors * case["direction"]) + 0.25 * out.commit_loss + out.codebook_loss

    value, (of_latents, of_factors) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(case["latents"], factors)
    np.testing.assert_allclose(value, case["loss"], **TOLERANCE)
    np.testing.assert_allclose(of_latents, case["gradient/latents"], **TOLERANCE)
    for name, gradient in of_factors._asdict().items():
        np.testing.assert_allclose(gradient, case[f"gradient/{name}"], **TOLERANCE)


RECONSTRUCTION = {
    "time": recipe_losses.time_loss,
    "mel": lambda a, b: recipe_losses.mel_loss(
        a, b, published_losses.RATE_HZ, tuple(published_losses.MEL_LADDER.items())
    ),
    "multi_scale": lambda a, b: recipe_losses.multi_scale_loss(
        a, b, published_losses.RATE_HZ, published_losses.SCALE_WINDOWS
    ),
}


@jax.jit
def reconstruction(real, fake):
    return {name: jax.value_and_grad(loss, argnums=1)(real, fake) for name, loss in RECONSTRUCTION.items()}


def test_reconstruction_losses(golden):
    """Zero for the same sound alone, where, as in silence, their gradient is a number."""
    real, fake = (jnp.asarray(np.tile(wav, 2)) for wav in published_losses.inputs())
    silence = jnp.zeros_like(real)
    found, same, silent = reconstruction(real, fake), reconstruction(real, real), reconstruction(silence, silence)
    for name, (value, gradient) in found.items():
        np.testing.assert_allclose(value, golden[f"reconstruction/{name}"], **TOLERANCE)
        np.testing.assert_allclose(gradient, golden[f"reconstruction/{name}/wav"], **TOLERANCE)
        assert float(same[name][0]) < 1e-5 < 0.05 < float(value)
        assert np.isfinite(same[name][1]).all() and np.isfinite(silent[name][1]).all()
