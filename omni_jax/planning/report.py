"""A plan as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def format_plan(plan: Mapping[str, Any]) -> str:
    mesh = " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items())
    versions = plan["versions"]
    fits = "fits" if plan["fits"] else "DOES NOT FIT"
    lines = [
        f"{plan['stage']}:{plan['size']} on {plan['num_slices']} x {plan['topology']}: {mesh}",
        *_workload(plan),
        "per device and step:",
        f"memory      {_gb(plan['argument_bytes'])} arguments + {_gb(plan['temp_bytes'])} temporaries = "
        f"{_gb(plan['peak_bytes'])} of {_gb(plan['capacity_bytes'])}: {fits}",
        f"FLOPs       {_model(plan)}program {plan['program_flops']:.4g}",
        f"links       {_parts(plan['collective_bytes'])}; by axis {_parts(plan['collective_bytes_by_axis'])}",
        f"overlapped  {plan['predicted_step_seconds']:.3g} s{_mfu(plan, 'predicted_mfu')}, by {plan['bound_by']}",
        f"serial      {plan['predicted_step_seconds_serial']:.3g} s{_mfu(plan, 'predicted_mfu_serial')}",
        f"compiled    {plan['compile_seconds']:.0f} s, jax {versions['jax']}, libtpu {versions['libtpu']}",
    ]
    if plan["unknown_kernels"]:
        lines.append(f"kernels whose FLOPs are not counted: {', '.join(plan['unknown_kernels'])}")
    return "\n".join(lines)


def _workload(plan: Mapping[str, Any]) -> list[str]:
    """A codec's step is of samples and has discriminators."""
    total = plan["params_total"]
    if "segment_samples" in plan:
        judges = plan["params_discriminators"]
        return [
            f"batch       {plan['rows']} rows x {plan['segment_samples']} samples",
            f"parameters  {total / 1e6:.1f} M, discriminators {judges / 1e6:.1f} M",
        ]
    return [
        f"batch       {plan['rows']} rows x {plan['row_positions']} positions, remat {plan['remat']}",
        f"parameters  {total / 1e9:.3f} B, active {plan['params_active'] / 1e9:.3f} B",
    ]


def _model(plan: Mapping[str, Any]) -> str:
    return f"model {plan['model_flops']:.4g}, " if "model_flops" in plan else ""


def _mfu(plan: Mapping[str, Any], name: str) -> str:
    return f", MFU {plan[name]:.1%}" if name in plan else ""


def format_sweep(plans: Sequence[Mapping[str, Any]]) -> str:
    """Ranked; what does not fit comes last, with the reason."""
    lines = ["tokens/s a device   MFU  memory     remat    rows  mesh"]
    for plan in plans:
        change = plan["change"]
        mesh = " ".join(f"{axis}={size}" for axis, size in change["mesh"].items() if size > 1)
        setting = f"{change['remat']:8} {change['rows']:5}  {mesh}"
        if "error" in plan:
            lines.append(f"{'-':>17}     -  -          {setting}  {plan['error']}")
            continue
        tokens = plan["tokens_per_second"]
        note = "" if plan["fits"] else "  does not fit"
        lines.append(f"{tokens:17.0f} {plan['predicted_mfu']:5.1%}  {_gb(plan['peak_bytes']):9}  {setting}{note}")
    return "\n".join(lines)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _parts(sizes: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_gb(size)}" for name, size in sizes.items()) or "nothing"
