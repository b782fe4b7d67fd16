"""Codecs on a 10 s clip: seconds of computation a second of audio, beside the transformers library on PyTorch.

python -m benchmarks.codec --json=codec.json

Random weights of the published shapes, 8 codebooks. Ours and the library's run in turn, so that both meet the same
machine; the figures are the fastest of the rounds. Without torch and transformers only our side is measured. Also one
80 ms frame through the streaming decoder of `spectral`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.codec_config import DAC_24KHZ, ENCODEC_24KHZ, MIMI, CodecConfig
from omni_jax.models import codec

SECONDS, ROUNDS, FRAMES = 10, 9, 200
NUM_CODEBOOKS = 8
KBPS = 6.0  # of EnCodec with 8 codebooks

Runs = dict[str, Callable[[], Any]]


def fastest(runs: Runs) -> dict[str, float]:
    """Seconds of each, after a round that compiles."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


def ours(cfg: codec.AnyCodecConfig) -> Runs:
    params = codec.init_params(cfg, jax.random.key(0))
    wav = 0.1 * jax.random.normal(jax.random.key(1), (1, SECONDS * cfg.sample_rate_hz))
    codes = codec.encode_codes(cfg, params, wav)
    return {
        "encode": lambda: jax.block_until_ready(codec.encode_codes(cfg, params, wav)),
        "decode": lambda: jax.block_until_ready(codec.decode_codes(cfg, params, codes)),
    }


def theirs(name: str) -> Runs:
    import torch
    from transformers import EncodecConfig, EncodecModel, MimiConfig, MimiModel

    torch.set_grad_enabled(False)
    wav = 0.1 * torch.randn(1, 1, SECONDS * 24_000)
    if name == "encodec":
        model = EncodecModel(EncodecConfig()).eval()
        encoded = model.encode(wav, bandwidth=KBPS)
        return {
            "library encode": lambda: model.encode(wav, bandwidth=KBPS),
            "library decode": lambda: model.decode(encoded.audio_codes, encoded.audio_scales),
        }
    model = MimiModel(MimiConfig(num_quantizers=NUM_CODEBOOKS)).eval()
    codes = model.encode(wav, num_quantizers=NUM_CODEBOOKS).audio_codes
    return {
        "library encode": lambda: model.encode(wav, num_quantizers=NUM_CODEBOOKS),
        "library decode": lambda: model.decode(codes),
    }


def streaming_frame_ms() -> float:
    """Median of a frame of one row through `spectral`'s decoder step, the state on the device."""
    cfg = CodecConfig()
    params, everyone = codec.init_params(cfg, jax.random.key(0)), jnp.ones(1, bool)
    frame, times = jnp.zeros((1, 1, cfg.num_codebooks), jnp.int32), []
    state = codec.init_decode_state(cfg, 1)
    for _ in range(FRAMES):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(codec.decode_step(cfg, params, state, frame, everyone))
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the results")
    flags = parser.parse_args()
    encodec, mimi, dac = (
        dataclasses.replace(cfg, num_codebooks=NUM_CODEBOOKS) for cfg in (ENCODEC_24KHZ, MIMI, DAC_24KHZ)
    )
    has_library = importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")
    results: dict[str, Any] = {}
    print("| codec | encode, s / s | library | decode, s / s | library |\n|---|---|---|---|---|")
    for name, cfg in {"encodec": encodec, "mimi": mimi, "dac": dac, "spectral": CodecConfig()}.items():
        runs = ours(cfg) | (theirs(name) if has_library and name in ("encodec", "mimi") else {})
        times = {run: seconds / SECONDS for run, seconds in fastest(runs).items()}
        cells = [times.get(run) for run in ("encode", "library encode", "decode", "library decode")]
        print(f"| {name} | {' | '.join('' if cell is None else f'{cell:.4f}' for cell in cells)} |", flush=True)
        results[name] = times
    results["spectral_frame_ms"] = streaming_frame_ms()
    print(f"\none frame of `spectral` decodes in {results['spectral_frame_ms']:.2f} ms")
    if flags.json:
        results |= {"jax": jax.__version__, "numpy": np.__version__, "seconds": SECONDS}
        with open(flags.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
