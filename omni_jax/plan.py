"""Plans a run without its hardware: memory, FLOPs, bytes on the links and step time of the real, compiled step.

python -m omni_jax.plan --config=configs/pretrain.py:30b_a3b --topology=v5p:4x4x4 [--num_slices=2]
    [--config.mesh.fsdp=64] [--json=FILE] [--hlo=FILE] [--sweep] [--memory_only]

`--memory_only` leaves out the code, whose generation may take many minutes, and says what memory the step needs.
`--sweep --json=FILE` writes every result when it is there; the same command again goes on with what is missing.
`--topology=cpu:8` compiles for fake CPU devices; TPU topologies (v4, v5e, v5p, v6e) need libtpu, and no TPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from omni_jax.config import resolve
from omni_jax.errors import UserError, run_main
from omni_jax.train import read_options

USAGE = "--config=configs/<stage>.py:<size> --topology=v5p:4x4x4"
OPTIONS = {"topology": "", "num_slices": "1", "json": "", "hlo": "", "sweep": False, "memory_only": False}


def main(arguments: Sequence[str] | None = None) -> int:
    values, options = read_options(sys.argv if arguments is None else ["plan", *arguments], USAGE, OPTIONS)
    if not options["topology"]:
        raise UserError(f"give {USAGE}")
    if not options["num_slices"].isdecimal():
        raise UserError(f"--num_slices={options['num_slices']}: want a number, such as 2")
    jax.config.update("jax_platforms", "cpu")  # the devices that are planned for need not be there
    from omni_jax.planning.memory_need import format_need, memory_need
    from omni_jax.planning.plan import Target, make_plan
    from omni_jax.planning.report import format_plan, format_sweep
    from omni_jax.planning.sweep import sweep

    config, target = resolve(values), Target(options["topology"], int(options["num_slices"]))
    if options["sweep"]:
        path = options["json"]
        print(format_sweep(sweep(config, target, _earlier(path), lambda results: _write(path, _text(results)))))
        return 0
    if options["memory_only"]:
        need = memory_need(config, target)
        print(format_need(need))
        _write(options["json"], _text(need))
        return 0
    plan = make_plan(config, target)
    print(format_plan(plan.values))
    _write(options["json"], _text(plan.values))
    _write(options["hlo"], plan.hlo)
    return 0


def _text(values: Any) -> str:
    return json.dumps(values, indent=1) + "\n"


def _earlier(path: str) -> list[dict[str, Any]]:
    """The results of a sweep that was interrupted."""
    if not path or not Path(path).exists():
        return []
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as results of a sweep ({error}): remove it, or give another") from error
    if not isinstance(results, list) or not all(isinstance(result, dict) and "change" in result for result in results):
        raise UserError(f"{path}: not the results of a sweep: remove it, or give another path")
    return results


def _write(path: str, text: str) -> None:
    if not path:
        return
    try:
        whole = Path(f"{path}.part")
        whole.write_text(text, encoding="utf-8")
        whole.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a path that can be written") from error


if __name__ == "__main__":
    run_main(main)
