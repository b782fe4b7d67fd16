"""Codecs on a 10 s clip: seconds of computation a second of audio, beside the transformers library on PyTorch.

python -m benchmarks.codec --json=codec.json

Random weights of the published shapes. Without torch and transformers only our side is measured. Also one 80 ms frame
through the streaming decoder of `spectral`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.codec_config import DAC_24KHZ, ENCODEC_24KHZ, MIMI
from omni_jax.config import CodecConfig
from omni_jax.models import codec

SECONDS, ROUNDS = 10, 5


def seconds_of(run: Callable[[], Any]) -> float:
    """Median of a few runs, after one that compiles."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_ours(cfg: codec.AnyCodecConfig) -> dict[str, float]:
    params = codec.init_params(cfg, jax.random.key(0))
    wav = 0.1 * jax.random.normal(jax.random.key(1), (1, SECONDS * cfg.sample_rate_hz))
    codes = codec.encode_codes(cfg, params, wav)
    encode = seconds_of(lambda: jax.block_until_ready(codec.encode_codes(cfg, params, wav)))
    decode = seconds_of(lambda: jax.block_until_ready(codec.decode_codes(cfg, params, codes)))
    return {"encode": encode / SECONDS, "decode": decode / SECONDS}


def measure_library(name: str) -> dict[str, float]:
    import torch
    from transformers import EncodecConfig, EncodecModel, MimiConfig, MimiModel

    model = (EncodecModel(EncodecConfig()) if name == "encodec" else MimiModel(MimiConfig())).eval()
    wav = 0.1 * torch.randn(1, 1, SECONDS * 24_000)
    with torch.no_grad():
        if name == "encodec":
            bandwidth = model.config.target_bandwidths[-1]
            encoded = model.encode(wav, bandwidth=bandwidth)
            encode = seconds_of(lambda: model.encode(wav, bandwidth=bandwidth))
            decode = seconds_of(lambda: model.decode(encoded.audio_codes, encoded.audio_scales))
        else:
            codes = model.encode(wav).audio_codes
            encode, decode = seconds_of(lambda: model.encode(wav)), seconds_of(lambda: model.decode(codes))
    return {"encode": encode / SECONDS, "decode": decode / SECONDS}


def streaming_frame_ms() -> float:
    """One frame of one row through `spectral`'s decoder step, the state on the device."""
    cfg = CodecConfig()
    params, everyone = codec.init_params(cfg, jax.random.key(0)), jnp.ones(1, bool)
    frame = jnp.zeros((1, 1, cfg.num_codebooks), jnp.int32)
    state = codec.init_decode_state(cfg, 1)
    return 1000 * seconds_of(lambda: jax.block_until_ready(codec.decode_step(cfg, params, state, frame, everyone)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the results")
    flags = parser.parse_args()
    shapes = {"encodec": ENCODEC_24KHZ, "mimi": MIMI, "dac": DAC_24KHZ, "spectral": CodecConfig()}
    results: dict[str, Any] = {name: measure_ours(cfg) for name, cfg in shapes.items()}
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        results |= {f"{name} (transformers)": measure_library(name) for name in ("encodec", "mimi")}
    print("| codec | encode, s / s | decode, s / s |\n|---|---|---|")
    for name, times in results.items():
        print(f"| {name} | {times['encode']:.4f} | {times['decode']:.4f} |")
    results["spectral_frame_ms"] = streaming_frame_ms()
    print(f"\none frame of `spectral` decodes in {results['spectral_frame_ms']:.2f} ms")
    if flags.json:
        results |= {"jax": jax.__version__, "numpy": np.__version__, "seconds": SECONDS}
        with open(flags.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
