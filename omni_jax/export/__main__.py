"""Writes a trained model as a directory for other people's servers, or for safe keeping.

python -m omni_jax.export --workdir=runs/quickstart --out=exported [--format=stablehlo] [--dtype=bfloat16]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from omni_jax.errors import UserError, run_main
from omni_jax.export.archive import Bundle, describe, write_archive, write_companions
from omni_jax.export.bundle import load_bundle
from omni_jax.export.directory import whole_or_absent
from omni_jax.export.onnx_graphs import find_converter, model_graphs, write_graphs
from omni_jax.export.precision import DTYPES
from omni_jax.export.programs import write_programs
from omni_jax.export.sharded import write_sharded
from omni_jax.export.triton import make_repository
from omni_jax.export.workdir import write_workdir
from omni_jax.models import omni
from omni_jax.models.omni_streaming import Sampling
from omni_jax.parallel.mesh import parse_mesh
from omni_jax.streaming.tick import TickConfig, Weights

FORMATS = {
    "safetensors": "the archive: python -m omni_jax.generate and evaluate load it",
    "stablehlo": "the archive, with the streaming functions as programs and a loader that needs jax and flatbuffers",
    "triton": "a model repository for Triton Inference Server, with stablehlo's programs in it",
    "orbax": "parameters for JAX servers, laid out over --mesh",
    "onnx": "turn detector and codec, a graph a streaming step",
    "workdir": "parameters that other runs start from; a codec's alone, too",
}


_TALK = "talk to it: python -m omni_jax.generate --workdir={out} --audio=question.wav --out=answer.wav"
_NEXT = dict.fromkeys(FORMATS, _TALK) | {
    "triton": "serve it: tritonserver --model-repository={out}",
    "onnx": "inputs and outputs of the graphs: {out}/onnx.json",
    "workdir": "start from it: {out}, or the stages in it, for --config.training.init_from and codec_from",
}


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parse(arguments)
    if flags.format == "workdir":
        with whole_or_absent(flags.out) as directory:
            write_workdir(directory, flags.workdir, flags.dtype)
    else:
        _export(flags)
    for path in sorted(Path(flags.out).iterdir()):
        print(f"{_bytes(path) / 1e6:9.3f} MB  {path}")
    print(_NEXT[flags.format].format(out=flags.out))
    return 0


def _export(flags: argparse.Namespace) -> None:
    bundle = load_bundle(flags.workdir)
    if flags.license:
        bundle = dataclasses.replace(bundle, license=flags.license)
    weights = bundle.stored(flags.dtype)
    with whole_or_absent(flags.out) as directory:
        _write(directory, bundle, weights, flags)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.export", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, help="a run's workdir (with duplex/ and codec/ in it), one stage's, or an export"
    )
    parser.add_argument("--out", required=True, help="directory to make")
    formats = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
    parser.add_argument("--format", default="safetensors", choices=FORMATS, help=formats)
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the model's stored weights")
    parser.add_argument("--license", default="", help="of the weights, for the manifest: an SPDX identifier")
    parser.add_argument("--mesh", default="", help="orbax: axes as in tensor=4,expert=2; by default one device")
    parser.add_argument("--rows", type=int, default=1, help="stablehlo: calls that run together")
    parser.add_argument("--max_calls", type=int, default=64, help="triton: calls that go on at the same time")
    parser.add_argument(
        "--text_temperature", type=float, default=Sampling.text_temperature, help="stablehlo, triton: 0 is greedy"
    )
    parser.add_argument(
        "--audio_temperature", type=float, default=Sampling.audio_temperature, help="stablehlo, triton: 0 is greedy"
    )
    flags = parser.parse_args(arguments)
    flags.sampling = Sampling(text_temperature=flags.text_temperature, audio_temperature=flags.audio_temperature)
    for name in ("rows", "max_calls"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}={getattr(flags, name)}: want at least 1")
    if flags.format == "triton" and flags.rows > 1:
        raise UserError(f"--rows={flags.rows}: Triton's calls run one by one; --max_calls bounds them")
    if flags.format == "workdir" and flags.dtype == "int8":
        raise UserError("--dtype=int8: --format=workdir rounds numbers one by one: give float32 or bfloat16")
    if flags.format == "workdir" and flags.license:
        raise UserError(
            f"--license={flags.license}: --format=workdir has no manifest for it: write it beside the files"
        )
    if flags.format == "onnx" and flags.dtype != "float32":
        raise UserError(f"--dtype={flags.dtype}: the graphs of --format=onnx hold float32")
    return flags


def _write(directory: Path, bundle: Bundle, weights: Weights, flags: argparse.Namespace) -> None:
    if flags.format == "triton":
        directory = make_repository(directory, bundle.config.model, flags.max_calls)
    if flags.format == "onnx":
        to_onnx = find_converter()
        write_graphs(directory, model_graphs(bundle), to_onnx)
        write_companions(directory, bundle)
    elif flags.format == "orbax":
        axes = omni.param_axes(bundle.config.model)
        write_sharded(directory, weights, axes, parse_mesh(flags.mesh, fsdp=1))
        write_companions(directory, bundle)
    else:
        write_archive(directory, bundle, weights)
    if flags.format in ("stablehlo", "triton"):
        config = TickConfig(bundle.config.model, bundle.config.codec, flags.sampling)
        write_programs(directory, config, weights, flags.rows)
    describe(directory, bundle, weights)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


if __name__ == "__main__":
    run_main(main)
