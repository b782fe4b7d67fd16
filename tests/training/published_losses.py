"""Discriminators, losses, balancer and quantiser written plainly in PyTorch, as the fixture that the tests read.

`python -m tests.training.published_losses` writes tests/golden/published/losses.npz again; it needs torch.
"""

import itertools
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "published" / "losses.npz"
DIM, SAMPLES, SLOPES = 4, 600, {"period": 0.1, "scale": 0.1, "stft": 0.3}
PERIOD, WINDOW = 3, 64
BALANCER_WEIGHTS = {"time": 0.1, "square": 2.0}


def conv_shapes(kind):
    """(in, out, kernel, stride, padding, dilation, groups) of every convolution, the last one the judge."""
    if kind == "period":
        widths = (1, DIM, 4 * DIM, 16 * DIM, 32 * DIM)
        convs = [(a, b, (5, 1), (3, 1), (2, 0), (1, 1), 1) for a, b in itertools.pairwise(widths)]
        last = (32 * DIM, 32 * DIM, (5, 1), (1, 1), (2, 0), (1, 1), 1)
        return [*convs, last, (32 * DIM, 1, (3, 1), (1, 1), (1, 0), (1, 1), 1)]
    if kind == "scale":
        width, rows = (
            DIM,
            ((1, 15, 1, 1), (1, 41, 2, 4), (2, 41, 2, 16), (4, 41, 4, 16), (8, 41, 4, 16), (8, 41, 1, 16)),
        )
        convs, before = [], 1
        for factor, kernel, stride, groups in rows:
            convs.append((before, factor * width, (kernel,), (stride,), (kernel // 2,), (1,), min(groups, width)))
            before = factor * width
        return [*convs, (before, before, (5,), (1,), (2,), (1,), 1), (before, 1, (3,), (1,), (1,), (1,), 1)]
    dilated = [(DIM, DIM, (3, 9), (1, 2), (d, 4), (d, 1), 1) for d in (1, 2, 4)]
    plain = [(2, DIM, (3, 9), (1, 1), (1, 4), (1, 1), 1), *dilated, (DIM, DIM, (3, 3), (1, 1), (1, 1), (1, 1), 1)]
    return [*plain, (DIM, 1, (3, 3), (1, 1), (1, 1), (1, 1), 1)]


def make_weights(kind):
    rng = np.random.default_rng(len(kind))
    weights = []
    for before, after, kernel, _, _, _, groups in conv_shapes(kind):
        shape = (after, before // groups, *kernel)
        weight = rng.standard_normal(shape) * 2 * np.prod(shape[1:]) ** -0.5
        weights.append((weight.astype(np.float32), (0.1 * rng.standard_normal(after)).astype(np.float32)))
    return weights


def inputs():
    rng = np.random.default_rng(7)
    return [(0.3 * rng.standard_normal((2, SAMPLES))).astype(np.float32) for _ in range(2)]


def judge(kind, weights, wav):
    """Features and logits in PyTorch's layout."""
    import torch
    from torch.nn import functional

    if kind == "period":
        wav = functional.pad(wav, (0, -wav.shape[1] % PERIOD), "reflect")
        x = wav.reshape(wav.shape[0], 1, -1, PERIOD)
    elif kind == "scale":
        x = functional.avg_pool1d(wav[:, None], 4, 2, padding=2)
    else:
        hann = torch.hann_window(WINDOW)
        spectrum = torch.stft(
            wav, WINDOW, WINDOW // 4, window=hann, center=False, return_complex=True, normalized=False
        )
        spectrum = spectrum / (hann**2).sum().sqrt()
        x = torch.stack([spectrum.real, spectrum.imag], 1).transpose(2, 3)
    features = []
    for number, ((_, _, _, stride, padding, dilation, groups), (weight, bias)) in enumerate(
        zip(conv_shapes(kind), weights)
    ):
        conv = functional.conv1d if weight.dim() == 3 else functional.conv2d
        x = conv(x, weight, bias, stride, padding, dilation, groups)
        if number < len(weights) - 1:
            x = functional.leaky_relu(x, SLOPES[kind])
            features.append(x)
    return features, x


def adversarial_case(kind):
    """Losses of both sides, and their gradients with respect to the decoded waveform and the first kernel."""
    import torch

    weights = [[torch.from_numpy(array).requires_grad_() for array in pair] for pair in make_weights(kind)]
    real, fake = (torch.from_numpy(wav) for wav in inputs())
    fake.requires_grad_()
    (real_features, real_logits), (fake_features, fake_logits) = (judge(kind, weights, wav) for wav in (real, fake))
    pairs = [(a.detach(), b) for a, b in zip(real_features, fake_features)]
    relu = torch.relu
    losses = {
        "hinge_discriminator": relu(1 - real_logits).mean() + relu(1 + fake_logits).mean(),
        "hinge_generator": -fake_logits.mean(),
        "least_squares_discriminator": (1 - real_logits).square().mean() + fake_logits.square().mean(),
        "least_squares_generator": (1 - fake_logits).square().mean(),
        "feature": sum((a - b).abs().mean() for a, b in pairs),
        "relative_feature": sum((a - b).abs().mean() / a.abs().mean() for a, b in pairs) / len(pairs),
    }
    out = {}
    for name, loss in losses.items():
        wav_gradient, kernel_gradient = torch.autograd.grad(loss, [fake, weights[0][0]], retain_graph=True)
        out |= {name: loss.detach(), f"{name}/wav": wav_gradient, f"{name}/kernel": kernel_gradient}
    return {f"{kind}/{name}": np.asarray(value) for name, value in out.items()}


def balancer_case():
    """A generator of one matrix, two losses, three steps of EnCodec's balancer, pulled back to the matrix."""
    import torch

    rng = np.random.default_rng(3)
    matrix = torch.from_numpy(rng.standard_normal((5, 8)).astype(np.float32)).requires_grad_()
    averages, weight, out = dict.fromkeys(BALANCER_WEIGHTS, 0.0), 0.0, {"balancer/matrix": matrix.detach().numpy()}
    for step in range(3):
        x = torch.from_numpy(rng.standard_normal((4, 5)).astype(np.float32))
        target = torch.from_numpy(rng.standard_normal((4, 8)).astype(np.float32))
        wav = x @ matrix
        losses = {"time": (wav - target).abs().mean(), "square": (100 * (wav - target)).square().mean()}
        weight, total = 0.999 * weight + 1, 0.0
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, wav, retain_graph=True)
            averages[name] = 0.999 * averages[name] + gradient.norm(dim=1).mean().item()
            share = BALANCER_WEIGHTS[name] / sum(BALANCER_WEIGHTS.values())
            total = total + share * gradient / (averages[name] / weight + 1e-12)
        (pulled,) = torch.autograd.grad(wav, matrix, total)
        out |= {f"balancer/{step}/x": x, f"balancer/{step}/target": target, f"balancer/{step}/gradient": pulled}
    return {name: np.asarray(value) for name, value in out.items()}


def quantizer_case():
    """Residual quantisation with each level detached, one identity gradient and a commitment loss."""
    import torch

    rng = np.random.default_rng(5)
    latents = torch.from_numpy(rng.standard_normal((6, 4)).astype(np.float32)).requires_grad_()
    books = torch.from_numpy(rng.standard_normal((3, 8, 4)).astype(np.float32))
    residual, total, commit = latents, 0.0, 0.0
    for book in books:
        chosen = book[torch.cdist(residual.detach(), book).argmin(1)]
        commit = commit + (residual - chosen).square().mean() / len(books)
        residual, total = residual - chosen, total + chosen
    out = latents + (total - latents).detach()
    direction = torch.from_numpy(rng.standard_normal((6, 4)).astype(np.float32))
    loss = (out * direction).sum() + commit
    (gradient,) = torch.autograd.grad(loss, latents)
    arrays = {"latents": latents.detach(), "books": books, "direction": direction, "loss": loss.detach()}
    return {f"quantizer/{name}": np.asarray(value) for name, value in (arrays | {"gradient": gradient}).items()}


def main():
    arrays = balancer_case() | quantizer_case()
    for kind in SLOPES:
        arrays |= adversarial_case(kind)
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
