"""Writes a trained model as a directory that needs no training code to load: safetensors, config, tokenizer, manifest.

python -m omni_jax.export --workdir=runs/quickstart --out=exported [--format=stablehlo]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from omni_jax.errors import UserError, run_main
from omni_jax.export.bundle import Bundle, load_bundle
from omni_jax.export.directory import write_export
from omni_jax.export.programs import write_programs
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.tick import TickConfig, Weights


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.export", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, help="a run's workdir (with duplex/ and codec/ in it) or one stage's"
    )
    parser.add_argument("--out", required=True, help="directory to make")
    parser.add_argument(
        "--format",
        default="safetensors",
        choices=("safetensors", "stablehlo"),
        help="stablehlo adds the streaming functions as programs and a loader that needs jax alone",
    )
    parser.add_argument("--rows", type=int, default=1, help="stablehlo: calls that run together")
    parser.add_argument("--text_temperature", type=float, default=0.0, help="stablehlo: 0 is greedy")
    parser.add_argument("--audio_temperature", type=float, default=0.7, help="stablehlo: 0 is greedy")
    flags = parser.parse_args(arguments)
    if flags.rows < 1:
        raise UserError(f"--rows={flags.rows}: want at least 1")
    bundle = load_bundle(flags.workdir)
    directory = write_export(
        flags.out,
        bundle.config,
        bundle.params,
        bundle.codec_params,
        bundle.tokenizer_model,
        bundle.step,
        _programs(bundle, flags) if flags.format == "stablehlo" else None,
    )
    for path in sorted(directory.iterdir()):
        print(f"{path.stat().st_size / 1e6:9.3f} MB  {path}")
    print(f"talk to it: python -m omni_jax.generate --workdir={flags.out} --audio=question.wav --out=answer.wav")
    return 0


def _programs(bundle: Bundle, flags: argparse.Namespace) -> Callable[[Path], None]:
    sampling = Sampling(text_temperature=flags.text_temperature, audio_temperature=flags.audio_temperature)
    config = TickConfig(bundle.config.model, bundle.config.codec, sampling)
    weights = Weights(bundle.params, bundle.codec_params)
    return partial(write_programs, config=config, weights=weights, rows=flags.rows)


if __name__ == "__main__":
    run_main(main)
