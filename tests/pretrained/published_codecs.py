"""Small random codecs of the transformers library, and what they compute, as the fixtures that the tests read.

`python -m tests.pretrained.published_codecs` writes tests/golden/published/ again; it needs torch and transformers.
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "published"
LENGTHS = (97, 240, 61)  # samples: odd ones, whole ones, hardly a frame
SEANET = {"num_filters": 4, "upsampling_ratios": [3, 2], "hidden_size": 8, "sampling_rate": 24_000}


def encodec():
    from transformers import EncodecConfig, EncodecModel

    bandwidth = 2 * 4 * 4.0  # kbit/s: two codebooks of 16 at 4000 Hz
    return EncodecModel(EncodecConfig(codebook_size=16, codebook_dim=8, target_bandwidths=[bandwidth], **SEANET))


def mimi():
    from transformers import MimiConfig, MimiModel

    transformer = {"num_hidden_layers": 2, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    codes = {"codebook_size": 16, "codebook_dim": 4, "vector_quantization_hidden_dimension": 4, "num_quantizers": 3}
    extra = {"sliding_window": 5, "upsample_groups": 8, "layer_scale_initial_scale": 0.3}
    return MimiModel(MimiConfig(**SEANET, **transformer, **codes, **extra))


def dac():
    from transformers import DacConfig, DacModel

    codes = {"n_codebooks": 3, "codebook_size": 16, "codebook_dim": 3, "sampling_rate": 24_000}
    return DacModel(DacConfig(encoder_hidden_size=4, downsampling_ratios=[2, 5], decoder_hidden_size=16, **codes))


def hifigan():
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    shape = {"upsample_rates": [3, 2], "upsample_kernel_sizes": [7, 4], "upsample_initial_channel": 16}
    blocks = {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]]}
    return SpeechT5HifiGan(SpeechT5HifiGanConfig(model_in_dim=6, **shape, **blocks))


def randomise(model, seed=0, gain=1.0):
    """Weights large enough that every part of the model matters, buffers too. `gain` is of kernels: at 1, the residual
    sums of a net as deep as the published DAC grow to hundreds."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or name.endswith(("inited", "initialized", "inv_freq")):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            fan_in = max(tensor[0].numel(), 1) if tensor.dim() > 1 else 1
            positive = name.endswith(("cluster_usage", "cluster_size", "alpha", "original0", "scale"))
            codebook = ".codebook" in name or "quantizers" in name
            if tensor.dim() == 1 and not positive:
                tensor.copy_(0.1 * noise)
            else:
                tensor.copy_(
                    noise.abs() * 0.5 + 0.5 if positive else noise * (1.0 if codebook else gain * fan_in**-0.5)
                )
    return model.eval()


def compute(name, model, length):
    """Input, latents, codes and waveform; of a vocoder, frames and waveform."""
    import torch

    rng = np.random.default_rng(length)
    with torch.no_grad():
        if name == "hifigan":
            frames = rng.standard_normal((2, length // 8, 6)).astype(np.float32)
            return {"frames": frames, "wav": model(torch.from_numpy(frames)).numpy()}
        wav = torch.from_numpy(0.5 * rng.standard_normal((2, 1, length)).astype(np.float32))
        if name == "encodec":
            latents, encoded = model.encoder(wav), model.encode(wav, bandwidth=model.config.target_bandwidths[-1])
            codes, decoded = encoded.audio_codes[0], model.decode(encoded.audio_codes, encoded.audio_scales)
        elif name == "mimi":
            latents, codes = model.encoder(wav).latents, model.encode(wav).audio_codes
            decoded = model.decode(codes)
        else:
            latents = model.encoder(wav)
            codes = model.encode(wav).audio_codes
            decoded = model.decode(audio_codes=codes)
        return {
            "input": wav[:, 0].numpy(),
            "latents": latents.numpy().swapaxes(1, 2),
            "codes": codes.numpy().swapaxes(1, 2).astype(np.int32),
            "wav": decoded.audio_values.numpy().reshape(2, -1),
        }


MODELS = {"encodec": encodec, "mimi": mimi, "dac": dac, "hifigan": hifigan}


def tensors_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def main():
    import json

    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        model = randomise(make())
        arrays = {f"weights/{key}": value for key, value in tensors_of(model).items()}
        for length in LENGTHS:
            arrays |= {f"{length}/{key}": value for key, value in compute(name, model, length).items()}
        config = json.dumps(model.config.to_dict())
        np.savez_compressed(GOLDEN / f"{name}.npz", config=np.frombuffer(config.encode(), np.uint8), **arrays)


if __name__ == "__main__":
    main()
