"""Step time and MFU that the planner predicts for a compiled TPU program, of whatever code.

python -m benchmarks.predict FILE.hlo.txt --topology=v5p:4x8x8 --model_tflops=4.1e3

For MaxText's programs at its published settings: docs/scaling.md. `--model_tflops`: a step's on one chip.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from omni_jax.planning.collectives import MeshShape
from omni_jax.planning.hlo import parse_hlo
from omni_jax.planning.roofline import program_cost
from omni_jax.planning.topology import chip_of, parse_topology


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--topology", required=True)
    parser.add_argument("--model_tflops", type=float, required=True)
    options = parser.parse_args()
    chip, (_, torus) = chip_of(options.topology), parse_topology(options.topology)
    mesh = MeshShape(("fsdp",), (math.prod(torus),))
    cost = program_cost(parse_hlo(options.file.read_text(encoding="utf-8")), mesh, chip, torus)
    flops = options.model_tflops * 1e12
    print(f"program {cost.flops:.4g} FLOPs, model {flops:.4g}, links {sum(cost.bytes_by_kind.values()) / 1e9:.1f} GB")
    for name, seconds in (("overlapped", cost.overlapped_seconds), ("serial", cost.serial_seconds)):
        print(f"{name:10} {seconds:.3f} s, MFU {flops / seconds / chip.peak_flops:.1%}")
    print(f"by {cost.bound_by}; kernels that are not counted: {', '.join(sorted(cost.unknown_kernels)) or 'none'}")


if __name__ == "__main__":
    main()
