"""Writes a trained model as a directory that needs no training code to load: safetensors, config, tokenizer, manifest.

python -m omni_jax.export --workdir=runs/quickstart --out=exported
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from omni_jax.errors import run_main
from omni_jax.export.bundle import load_bundle
from omni_jax.export.directory import write_export


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.export", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, help="a run's workdir (with duplex/ and codec/ in it) or one stage's"
    )
    parser.add_argument("--out", required=True, help="directory to make")
    flags = parser.parse_args(arguments)
    bundle = load_bundle(flags.workdir)
    directory = write_export(
        flags.out, bundle.config, bundle.params, bundle.codec_params, bundle.tokenizer_model, bundle.step
    )
    for path in sorted(directory.iterdir()):
        print(f"{path.stat().st_size / 1e6:9.3f} MB  {path}")
    print(f"talk to it: python -m omni_jax.generate --workdir={flags.out} --audio=question.wav --out=answer.wav")
    return 0


if __name__ == "__main__":
    run_main(main)
