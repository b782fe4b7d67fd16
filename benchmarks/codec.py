"""Codecs on a 10 s clip: seconds of computation a second of audio, beside the transformers library on PyTorch.

python -m benchmarks.codec --json=codec.json

Random weights of the published shapes, 8 codebooks. Ours and the library's run in turn, so that both meet the same
machine; the figures are the fastest of the rounds, by the clock, and the least processor time of all threads, which
other work on the machine disturbs less. Without torch and transformers only our side is measured. Also one 80 ms frame
through the streaming decoder of `spectral`, and what decoders and vocoders are late by.
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

from omni_jax.codec_config import DAC_24KHZ, ENCODEC_24KHZ, HIFIGAN_V1, MIMI, CodecConfig, VocosConfig
from omni_jax.models import codec, vocoder

SECONDS, FRAMES = 10, 200
NUM_CODEBOOKS = 8
KBPS = 6.0  # of EnCodec with 8 codebooks

Runs = dict[str, Callable[[], Any]]


def fastest(runs: Runs, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of each by the clock and of the processor, after a round that compiles."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            if number:
                times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: tuple(min(column) for column in zip(*found)) for name, found in times.items()}


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


def streaming_frame_ms() -> tuple[float, float]:
    """Of one row through `spectral`'s decoder step, the state on the device: the median by the clock, and the processor
    time of all threads."""
    cfg = CodecConfig()
    params, everyone = codec.init_params(cfg, jax.random.key(0)), jnp.ones(1, bool)
    frame, times = jnp.zeros((1, 1, cfg.num_codebooks), jnp.int32), []
    state = codec.init_decode_state(cfg, 1)
    state, _ = jax.block_until_ready(codec.decode_step(cfg, params, state, frame, everyone))
    before = time.process_time()
    for _ in range(FRAMES):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(codec.decode_step(cfg, params, state, frame, everyone))
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times)), 1000 * (time.process_time() - before) / FRAMES


def delays_ms() -> dict[str, float]:
    """Algorithmic latency of decoders and vocoders at 24 kHz."""
    hifigan = dataclasses.replace(HIFIGAN_V1, sample_rate_hz=24_000)
    short = VocosConfig(window=640, hop_samples=160)
    vocoders = {"vocos": VocosConfig(), "vocos, window 640": short, "hifigan v1": hifigan}
    late = {"spectral decoder": codec.decoder_latency_samples(CodecConfig())}
    late |= {name: vocoder.latency_samples(cfg) for name, cfg in vocoders.items()}
    return {name: samples / 24 for name, samples in late.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="after one that compiles")
    parser.add_argument("--json", help="file for the results")
    flags = parser.parse_args()
    results = {"jax": jax.__version__, "numpy": np.__version__, "seconds": SECONDS, "delays_ms": delays_ms()}
    results["spectral_frame_ms"], results["spectral_frame_cpu_ms"] = streaming_frame_ms()
    print(f"one frame of `spectral` decodes in {results['spectral_frame_ms']:.2f} ms", end=", ")
    print(f"{results['spectral_frame_cpu_ms']:.2f} ms of the processor\nlate by, ms: {results['delays_ms']}\n")
    encodec, mimi, dac = (
        dataclasses.replace(cfg, num_codebooks=NUM_CODEBOOKS) for cfg in (ENCODEC_24KHZ, MIMI, DAC_24KHZ)
    )
    has_library = importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")
    names = ("encode", "library encode", "decode", "library decode")
    print("Seconds a second of audio, in brackets of the processor:\n")
    print(f"| codec | {' | '.join(names)} |\n|---|---|---|---|---|", flush=True)
    for name, cfg in {"spectral": CodecConfig(), "mimi": mimi, "encodec": encodec, "dac": dac}.items():
        runs = ours(cfg) | (theirs(name) if has_library and name in ("encodec", "mimi") else {})
        found = fastest(runs, flags.rounds)
        results[name] = {run: [seconds / SECONDS for seconds in pair] for run, pair in found.items()}
        cells = (results[name].get(run) for run in names)
        shown = ("" if cell is None else f"{cell[0]:.4f} ({cell[1]:.4f})" for cell in cells)
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
    if flags.json:
        with open(flags.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
