"""The device mesh. Axes: data (across slices), fsdp, expert, context, tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from omni_jax.config import ConfigError, MeshConfig

AXES = ("data", "fsdp", "expert", "context", "tensor")


def mesh_shape(cfg: MeshConfig, num_devices: int) -> tuple[int, ...]:
    """Sizes in the order of `AXES`; the one axis that is -1 takes the devices that are left.

    Raises:
        ConfigError: more than one axis is -1, an axis is 0, or the product is not the number of devices.
    """
    sizes = [getattr(cfg, axis) for axis in AXES]
    shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ConfigError(f"mesh {shown}: want positive sizes and at most one -1; change --config.mesh.<axis>")
    known = math.prod(size for size in sizes if size > 0)
    if -1 in sizes:
        if num_devices % known:
            raise ConfigError(
                f"mesh {shown}: {num_devices} devices are not a multiple of {known}; change --config.mesh.<axis>"
            )
        sizes[sizes.index(-1)] = num_devices // known
    elif known != num_devices:
        raise ConfigError(
            f"mesh {shown} wants {known} devices but there are {num_devices}; set one axis to -1, e.g. "
            "--config.mesh.fsdp=-1"
        )
    return tuple(sizes)


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (all of them by default), with compiler-propagated ("Auto") axes."""
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(cfg, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
