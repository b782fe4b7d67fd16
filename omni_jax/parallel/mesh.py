"""The device mesh. Axes: data (across slices), fsdp, expert, context, tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from omni_jax.config import Config, MeshConfig
from omni_jax.config_dict import from_dict
from omni_jax.errors import ConfigError, UserError

AXES = ("data", "fsdp", "expert", "context", "tensor")


def parse_mesh(text: str, **default: int) -> MeshConfig:
    """`fsdp=4,tensor=2` as a mesh; `default` has the axes that are not named. Raises UserError."""
    try:
        sizes = dict(part.split("=") for part in text.split(",") if part)
        return from_dict(MeshConfig, default | {name: int(size) for name, size in sizes.items()})
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--mesh={text}: want axes with sizes, as in fsdp=4,tensor=2") from None


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
    """The mesh over `devices` (all of them by default), with compiler-propagated ("Auto") axes.

    Devices of several slices are joined along `data`, the only axis whose collectives cross the slow network between
    slices. An axis takes whole axes of a TPU's torus where its size allows, and parts of them where not. Raises
    ConfigError for a mesh that does not fit the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(cfg, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        place = partial(mesh_utils.create_device_mesh, shape, devices)
        return Mesh(_on_torus(place), AXES, axis_types=types)
    if shape[0] % slices:
        raise ConfigError(
            f"mesh.data={shape[0]} must be a multiple of the {slices} slices: only this axis crosses them; set "
            f"--config.mesh.data={slices}"
        )
    inside, across = (shape[0] // slices, *shape[1:]), (slices, *[1] * (len(shape) - 1))
    place = partial(mesh_utils.create_hybrid_device_mesh, inside, across, devices)
    return Mesh(_on_torus(place), AXES, axis_types=types)


def _on_torus(place: Callable[..., np.ndarray]) -> np.ndarray:
    try:
        return place()
    except NotImplementedError:  # an axis is not a product of whole torus axes
        return place(allow_split_physical_axes=True)


def check_batch(cfg: Config, mesh: Mesh) -> None:
    """Raises ConfigError where the mesh does not divide the rows of a batch, its pools or its positions."""
    data = cfg.data
    ways = mesh.shape["data"] * mesh.shape["fsdp"] * mesh.shape["expert"]
    pools = data.rows // data.rows_per_pool
    if pools % (ways * cfg.training.microbatches) or data.rows % data.rows_per_pool:
        unit = ways * cfg.training.microbatches * data.rows_per_pool
        raise ConfigError(
            f"data.rows={data.rows} must be a multiple of {unit}: {ways} devices along data, fsdp and expert x "
            f"training.microbatches={cfg.training.microbatches} x data.rows_per_pool={data.rows_per_pool}; set "
            f"--config.data.rows={max(1, round(data.rows / unit)) * unit} or a smaller mesh"
        )
    context = mesh.shape["context"]
    if context > 1 and data.row_positions % (2 * context):
        raise ConfigError(
            f"data.row_positions={data.row_positions} must be a multiple of {2 * context}, twice mesh.context: each "
            "device takes an early and a late part of a row; lower --config.mesh.context"
        )
