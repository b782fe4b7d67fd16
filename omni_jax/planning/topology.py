"""Devices that need not be there: TPU topologies by libtpu, or fake CPU devices."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from omni_jax.errors import UserError

# libtpu looks for a TPU's description in the environment before it compiles for another one.
_ENVIRONMENT = {
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-128",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}


@dataclass(frozen=True)
class Chip:
    """One accelerator. Links: ICI inside a slice, data-centre network (DCN) between slices."""

    peak_flops: float  # a second, bfloat16
    hbm_bytes: float
    hbm_bytes_per_second: float
    link_bytes_per_second: float  # one way of one link along one torus axis
    torus_axes: int
    dcn_bytes_per_second: float = 6.25e9  # a chip's share of its host's network


# cloud.google.com/tpu/docs: v4, v5e, v5p, v6e pages (2026-11). v4 and v5p: 3D tori, v5e and v6e: 2D.
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1.228e12, 50e9, 3),
    "v5e": Chip(197e12, 16 * 2**30, 0.819e12, 50e9, 2),
    "v5p": Chip(459e12, 95 * 2**30, 2.765e12, 100e9, 3),
    "v6e": Chip(918e12, 32 * 2**30, 1.640e12, 100e9, 2),
}
# Fake devices tell what a program does, not how fast: a nominal core.
CPU = Chip(1e11, 8 * 2**30, 2e10, 1e9, 1)


def parse_topology(name: str) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of `v5p:4x4x4` or `cpu:8`. Raises UserError."""
    matched = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    kinds = ", ".join([*CHIPS, "cpu"])
    if not matched or matched[1] not in (*CHIPS, "cpu"):
        raise UserError(f"--topology={name}: want <kind>:<shape> with kind one of {kinds}, such as v5p:4x4x4 or cpu:8")
    shape = tuple(int(size) for size in matched[2].split("x"))
    axes = 1 if matched[1] == "cpu" else CHIPS[matched[1]].torus_axes
    if len(shape) != axes:
        raise UserError(f"--topology={name}: {matched[1]} has {axes} axes, want for example {_EXAMPLES[matched[1]]}")
    return matched[1], shape


_EXAMPLES = {"v4": "v4:4x4x4", "v5e": "v5e:16x16", "v5p": "v5p:4x4x4", "v6e": "v6e:16x16", "cpu": "cpu:8"}


def chip_of(name: str) -> Chip:
    kind, _ = parse_topology(name)
    return CHIPS.get(kind, CPU)


def topology_devices(name: str, num_slices: int = 1) -> Sequence[jax.Device]:
    """The devices of a topology, to build a mesh from and compile for. Raises UserError."""
    kind, shape = parse_topology(name)
    if num_slices < 1:
        raise UserError(f"--num_slices={num_slices}: want at least 1")
    if kind == "cpu":
        return _cpu_devices(math.prod(shape) * num_slices)
    return _tpu_devices(kind, shape, num_slices)


def versions() -> dict[str, str]:
    """Of what compiles."""
    found = {"jax": jax.__version__}
    try:
        found["libtpu"] = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        found["libtpu"] = "none"
    return found


def _cpu_devices(count: int) -> Sequence[jax.Device]:
    with contextlib.suppress(RuntimeError):  # devices are there already, perhaps enough of them
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"{count} CPU devices wanted but JAX was started with {len(devices)}: start a new process")
    return devices[:count]


def _tpu_devices(kind: str, shape: tuple[int, ...], num_slices: int) -> Sequence[jax.Device]:
    if versions()["libtpu"] == "none":
        raise UserError(
            f"--topology={kind}:... needs libtpu to compile for a TPU: pip install 'jax[tpu]=={jax.__version__}' "
            "(Linux x86-64; no TPU is needed), or plan with --topology=cpu:8"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    options: dict[str, object] = {"num_slices": num_slices} if num_slices > 1 else {}
    # Rings are closed in 3D tori of whole 4x4x4 cubes and along 16 chips of a 2D one. Without closed rings the compiler
    # builds an all-gather as an all-reduce of twice the bytes.
    closed = 4 if len(shape) == 3 else 16
    options["wrap"] = (*(size % closed == 0 for size in shape), *[False] * (3 - len(shape)))
    if kind == "v4":
        options["chip_config_name"] = "megacore"
    try:
        return topologies.get_topology_desc(f"{kind}:{'x'.join(map(str, shape))}", "tpu", **options).devices
    except Exception as error:  # jaxlib raises its own runtime errors, of changing types
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"--topology={kind}:{'x'.join(map(str, shape))}: libtpu refuses it: {reason}") from error
