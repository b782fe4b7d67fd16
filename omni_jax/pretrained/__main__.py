"""Published weights in and out.

python -m omni_jax.pretrained import --from=DIR --out=WORKDIR [--mesh=fsdp=4,tensor=2] [--ignore=PATTERN]
python -m omni_jax.pretrained assemble --config=configs/align.py:tiny --text=DIR --audio=DIR --vision=DIR --out=WORKDIR
python -m omni_jax.pretrained export --workdir=WORKDIR --family=qwen3 --out=DIR [--dtype=bfloat16] [--adapters]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from omni_jax.checkpoint import load_params
from omni_jax.errors import UserError, run_main
from omni_jax.parallel.mesh import make_mesh, parse_mesh
from omni_jax.pretrained.assembling import CODEC, KINDS, assemble
from omni_jax.pretrained.exporting import export_text_model, family_for
from omni_jax.pretrained.families import TEXT_FAMILIES
from omni_jax.pretrained.importing import MODEL, import_text_model
from omni_jax.pretrained.peft import write_adapters
from omni_jax.train import parse_flags

_DTYPES = ("float32", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(arguments)
    return flags.run(flags)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.pretrained", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="import|assemble|export")
    reader = commands.add_parser("import", help=f"a published text model ({', '.join(TEXT_FAMILIES)}) as a workdir")
    reader.add_argument("--from", dest="directory", required=True, help="directory with config.json and safetensors")
    reader.add_argument("--out", required=True, help="workdir to make; training.init_from takes it")
    reader.add_argument("--mesh", default="", help="axes as in fsdp=4,tensor=2; by default fsdp over all devices")
    reader.add_argument("--dtype", default="float32", choices=_DTYPES, help="of the parameters")
    reader.add_argument("--ignore", action="append", default=[], help="pattern of tensors to leave out; repeatable")
    reader.add_argument("--adapters", help="directory of PEFT adapters of this model, to go on training them")
    reader.set_defaults(run=_import)
    joiner = commands.add_parser("assemble", help="an omni model around published parts")
    joiner.add_argument("--config", required=True, help="configs/<stage>.py:<size>, of which the other parts come")
    joiner.add_argument("--text", help="directory of a published text model")
    joiner.add_argument("--audio", help="directory of a Whisper; not for duplex")
    joiner.add_argument("--vision", help="directory of a CLIP, SigLIP or SigLIP 2")
    joiner.add_argument("--codec", help="directory of a Mimi, or workdir of a codec stage")
    joiner.add_argument("--out", required=True, help="workdir to make; training.init_from takes it")
    joiner.add_argument("--mesh", default="")
    joiner.add_argument("--ignore", action="append", default=[])
    joiner.set_defaults(run=_assemble)
    writer = commands.add_parser("export", help="a workdir's text path in a published layout")
    writer.add_argument("--workdir", required=True, help="a stage's or an import's workdir")
    writer.add_argument("--family", required=True, choices=TEXT_FAMILIES)
    writer.add_argument("--out", required=True, help="directory to make")
    writer.add_argument("--dtype", default="float32", choices=_DTYPES)
    writer.add_argument("--adapters", action="store_true", help="only the low-rank updates, as PEFT loads them")
    writer.set_defaults(run=_export)
    return parser


def _import(flags: argparse.Namespace) -> int:
    mesh = make_mesh(parse_mesh(flags.mesh))
    report = import_text_model(flags.directory, flags.out, mesh, flags.dtype, flags.ignore, flags.adapters)
    print("\n".join(report.lines()))
    print(f"take parts of it: --config.training.init_from='transformer/*={flags.out}'")
    return 0


def _assemble(flags: argparse.Namespace) -> int:
    config, *_ = parse_flags(["assemble", f"--config={flags.config}", f"--workdir={flags.out}"])
    directories = {name: value for name in (*KINDS, CODEC) if (value := getattr(flags, name))}
    if not directories:
        raise UserError("assemble: nothing to assemble: give --text, --audio, --vision or --codec")
    out = assemble(config, directories, flags.out, make_mesh(parse_mesh(flags.mesh)), flags.ignore)
    stage = flags.config.partition(":")[0]
    command = f"start from it: --config={stage}:{out}/{MODEL} --config.training.init_from={out}"
    if flags.codec:
        command += f" --config.training.codec_from={out / CODEC if (out / CODEC).is_dir() else flags.codec}"
    print(command)
    return 0


def _export(flags: argparse.Namespace) -> int:
    config, params = load_params(flags.workdir)
    if flags.adapters:
        left = write_adapters(family_for(flags.family, config.model), config.model, params, Path(flags.out))
        print("\n".join([f"adapters in {flags.out}", *(f"left out (not text): {name}" for name in left)]))
        return 0
    directory = export_text_model(config.model, params, flags.family, flags.out, flags.dtype, flags.workdir)
    for path in sorted(directory.iterdir()):
        print(f"{path.stat().st_size / 1e6:9.3f} MB  {path}")
    return 0


if __name__ == "__main__":
    run_main(main)
