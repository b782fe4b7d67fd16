"""Discriminators, losses, balancer and quantiser written plainly in PyTorch, as the fixture that the tests read.

`python -m tests.training.published_losses` writes tests/golden/published/losses.npz again; it needs torch.
"""

import itertools
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "published" / "losses.npz"
DIM, SAMPLES, SLOPES = 4, 600, {"period": 0.1, "scale": 0.1, "stft": 0.3, "bands": 0.1}
BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
PERIOD, WINDOW = 3, 64
BALANCER_WEIGHTS = {"time": 0.1, "square": 2.0}
MEL_LADDER, SCALE_WINDOWS, RATE_HZ = {128: 20, 256: 40}, (64, 256), 24_000
FACTORS = {
    "codebooks": (3, 8, 2),
    "in_kernel": (3, 4, 2),
    "in_bias": (3, 2),
    "out_kernel": (3, 2, 4),
    "out_bias": (3, 4),
}
NUM_ACTIVE = (1, 3, 2)


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
    if kind == "bands":
        strided = [(DIM, DIM, (3, 9), (1, 2), (1, 4), (1, 1), 1)] * 3
        square = (DIM, DIM, (3, 3), (1, 1), (1, 1), (1, 1), 1)
        one = [(2, DIM, (3, 9), (1, 1), (1, 4), (1, 1), 1), *strided, square]
        return [*(one * (len(BANDS) - 1)), (DIM, 1, (3, 3), (1, 1), (1, 1), (1, 1), 1)]
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

    shapes = list(zip(conv_shapes(kind), weights))
    if kind == "period":
        wav = functional.pad(wav, (0, -wav.shape[1] % PERIOD), "reflect")
        return convolve(kind, shapes, wav.reshape(wav.shape[0], 1, -1, PERIOD))
    if kind == "scale":
        return convolve(kind, shapes, functional.avg_pool1d(wav[:, None], 4, 2, padding=2))
    if kind == "stft":
        return convolve(kind, shapes, spectrum_of(wav))
    wav = wav - wav.mean(dim=-1, keepdim=True)
    spectrum = spectrum_of(0.8 * wav / (wav.abs().max(dim=-1, keepdim=True)[0] + 1e-9))
    edges, features, last, depth = [int(share * spectrum.shape[3]) for share in BANDS], [], [], 5
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        stack = shapes[number * depth : (number + 1) * depth]
        found, _ = convolve(kind, [*stack, shapes[-1]], spectrum[..., start:end])
        features += found
        last.append(found[-1])
    _, logits = convolve(kind, shapes[-1:], torch.cat(last, dim=3))
    return features, logits


def spectrum_of(wav):
    """Real and imaginary part, [B, 2, T, F]."""
    import torch

    hann = torch.hann_window(WINDOW)
    spectrum = torch.stft(wav, WINDOW, WINDOW // 4, window=hann, center=False, return_complex=True, normalized=False)
    spectrum = spectrum / (hann**2).sum().sqrt()
    return torch.stack([spectrum.real, spectrum.imag], 1).transpose(2, 3)


def convolve(kind, shapes, x):
    """Leaky ReLUs, whose outputs are the features, between the convolutions; the last one is the judge."""
    from torch.nn import functional

    features = []
    for number, ((_, _, _, stride, padding, dilation, groups), (weight, bias)) in enumerate(shapes):
        conv = functional.conv1d if weight.dim() == 3 else functional.conv2d
        x = conv(x, weight, bias, stride, padding, dilation, groups)
        if number < len(shapes) - 1:
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
        "clamped_hinge_generator": relu(1 - fake_logits).mean(),
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


def reconstruction_case():
    """The losses between waveforms, with the mel filters of the transformers library."""
    import torch

    real, fake = (torch.from_numpy(np.tile(wav, 2)) for wav in inputs())
    fake.requires_grad_()
    pairs = {window: [mel(wav, window, num_mels) for wav in (real, fake)] for window, num_mels in MEL_LADDER.items()}
    logs = [[band.clamp(min=1e-5).log10() for band in pair] for pair in pairs.values()]
    scales = [[mel(wav, window, min(64, window // 4)) for wav in (real, fake)] for window in SCALE_WINDOWS]
    multi_scale = 0.0
    for a, b in scales:
        a, b = a.clamp(min=1e-5), b.clamp(min=1e-5)
        multi_scale = multi_scale + (a - b).abs().mean() + (a.log() - b.log()).square().mean().sqrt()
    losses = {
        "time": (real - fake).abs().mean(),
        "mel": sum((a - b).abs().mean() for a, b in logs),
        "multi_scale": multi_scale / len(scales),
    }
    gradients = {f"{name}/wav": torch.autograd.grad(loss, fake, retain_graph=True)[0] for name, loss in losses.items()}
    losses = {name: loss.detach() for name, loss in losses.items()}
    return {f"reconstruction/{name}": np.asarray(value) for name, value in (losses | gradients).items()}


def mel(wav, window, num_mels):
    """Amplitudes, [B, T, M]."""
    import torch
    from transformers.audio_utils import mel_filter_bank

    hann, bins = torch.hann_window(window), window // 2 + 1
    spectrum = torch.stft(wav, window, window // 4, window=hann, center=False, return_complex=True)
    filters = mel_filter_bank(bins, num_mels, 0.0, RATE_HZ / 2, RATE_HZ, norm="slaney", mel_scale="slaney")
    return spectrum.abs().transpose(1, 2) @ torch.from_numpy(filters).float()


def factorised_case():
    """DAC's quantiser as published: straight-through at every level, rows with fewer codebooks, losses a row."""
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(11)
    draw = {"latents": (len(NUM_ACTIVE), 5, 4), "direction": (len(NUM_ACTIVE), 5, 4)} | FACTORS
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in draw.items()}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    trained = [tensors[name].requires_grad_() for name in ("latents", *FACTORS)]
    residual, total, commit, codebook = tensors["latents"], 0.0, 0.0, 0.0
    for level in range(3):
        books, in_kernel, in_bias, out_kernel, out_bias = (tensors[name][level] for name in FACTORS)
        projected = residual @ in_kernel + in_bias
        cosines = functional.normalize(projected, dim=-1) @ functional.normalize(books, dim=-1).T
        chosen = functional.embedding(cosines.argmax(-1), books)
        active = torch.tensor(NUM_ACTIVE) > level
        commit = (
            commit + (functional.mse_loss(projected, chosen.detach(), reduction="none").mean([1, 2]) * active).mean()
        )
        codebook = (
            codebook + (functional.mse_loss(chosen, projected.detach(), reduction="none").mean([1, 2]) * active).mean()
        )
        step = (projected + (chosen - projected).detach()) @ out_kernel + out_bias
        residual, total = residual - step, total + step * active[:, None, None]
    loss = (total * tensors["direction"]).sum() + 0.25 * commit + codebook
    gradients = torch.autograd.grad(loss, trained)
    found = arrays | {"loss": loss.detach()}
    found |= {f"gradient/{name}": gradient for name, gradient in zip(("latents", *FACTORS), gradients)}
    return {f"factorised/{name}": np.asarray(value) for name, value in found.items()}


def main():
    arrays = balancer_case() | quantizer_case() | reconstruction_case() | factorised_case()
    for kind in SLOPES:
        arrays |= adversarial_case(kind)
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
