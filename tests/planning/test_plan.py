"""The planner's command line, on fake devices; with libtpu also budgets of two sizes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs import pretrain
from omni_jax import plan
from omni_jax.config import MeshConfig, resolve
from omni_jax.errors import ConfigError, UserError
from omni_jax.models import omni
from omni_jax.parallel.mesh import check_batch, make_mesh
from omni_jax.planning.hlo import parse_hlo
from omni_jax.planning.plan import Target, make_plan
from omni_jax.planning.topology import chip_of, parse_topology, topology_devices

ROOT = Path(__file__).parents[2]
KEYS = [
    *("argument_bytes", "temp_bytes", "peak_bytes", "capacity_bytes", "fits", "params_total", "params_active"),
    *("model_flops", "program_flops", "collective_bytes", "predicted_step_seconds", "predicted_mfu", "bound_by"),
    "compile_seconds",
]
SMALL = [
    "--config=configs/pretrain.py:tiny",
    "--topology=cpu:8",
    "--config.model.transformer.num_layers=2",
    "--config.model.transformer.scan_layers=True",
    "--config.data.row_positions=64",
    "--config.mesh.expert=2",
]


def check_gathers(hlo, config):
    """Weights are gathered layer by layer, for the forward and the backward pass; no stack, and none to update it."""
    leaves = jax.tree.leaves(omni.param_axes(config.model))
    stacks = {leaf.shape for leaf in leaves if leaf.names[0] == "layers"}
    whole, layers = {leaf.shape for leaf in leaves} - stacks, {shape[1:] for shape in stacks}
    gathered = set()
    for _, item, times in parse_hlo(hlo).runs():
        if item.opcode.startswith("all-gather") and not item.opcode.endswith("-done"):
            name = item.attribute(r'op_name="([^"]*)"') or ""
            gathered |= {(shape.dims, times, "jvp" in name) for shape in item.shapes}
    assert not [one for one in gathered if one[0] in stacks]
    assert not [one for one in gathered if one[0] in whole | layers and not one[2]]
    experts = (config.model.transformer.num_experts, config.model.transformer.embed_dim)
    assert [one for one in gathered if one[0][:2] == experts and one[1] == config.model.transformer.num_layers]


def test_no_weight_is_gathered_but_for_its_layer():
    values = pretrain.get_config("qwen3_30b_a3b")
    values.model.vocab_size, values.data.row_positions, values.data.rows = 256, 64, 8
    trunk = {"num_layers": 3, "embed_dim": 64, "num_heads": 4, "head_dim": 16, "rope_sections": (4, 2, 2)}
    values.model.transformer.update(trunk | {"num_experts": 8, "experts_per_token": 2, "expert_dim": 32})
    config = resolve(values)
    check_gathers(make_plan(config, Target("cpu:8")).hlo, config)


def test_a_plan_on_fake_devices(tmp_path, capsys):
    assert plan.main([*SMALL, f"--json={tmp_path}/plan.json", f"--hlo={tmp_path}/step.hlo"]) == 0
    values = json.loads((tmp_path / "plan.json").read_text())
    assert all(key in values for key in KEYS)
    assert values["devices"] == 8
    assert values["fits"]
    assert values["program_flops"] > values["model_flops"] > 0
    assert values["collective_bytes"]["all-reduce"] > 0
    assert "ENTRY" in (tmp_path / "step.hlo").read_text()
    assert "cpu:8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --config"),
        (["--config=configs/pretrain.py:tiny"], "--topology=v5p:4x4x4"),
        (["--config=configs/pretrain.py:tiny", "--topology=v9:2x2"], "--topology=v9:2x2: want .* kind one of v4, v5e"),
        (["--config=configs/pretrain.py:tiny", "--topology=v5p:4x4"], "v5p has 3 axes, want for example v5p:4x4x4"),
        (["--config=configs/codec.py:tiny", "--topology=cpu:8", "--sweep"], "stage codec has no meshes"),
        (["--config=configs/codec.py:tiny", "--topology=cpu:8", "--memory_only"], "asks the TPU compiler"),
        ([*SMALL, "--config.data.rows=12"], "data.rows=12 must be a multiple of 8"),
        ([*SMALL, "--config.mesh.tensor=3"], "8 devices are not a multiple of 6"),
    ],
)
def test_what_cannot_be_planned_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        plan.main(arguments)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_remedy_is_named():
    with pytest.raises(UserError, match=r"needs libtpu .* pip install 'jax\[tpu\]"):
        topology_devices("v5p:4x4x4")


def test_chips_and_shapes():
    assert parse_topology("v5e:16x16") == ("v5e", (16, 16))
    assert chip_of("v5p:4x4x4").peak_flops == 459e12


@pytest.mark.parametrize(
    ("mesh", "changes", "message"),
    [
        (MeshConfig(data=2, fsdp=2, expert=2), {"rows": 12}, r"rows=12 must be a multiple of 8.*--config.data.rows=16"),
        (MeshConfig(fsdp=2, context=4), {"row_positions": 66}, "row_positions=66 must be a multiple of 8, twice"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(mesh, changes, message):
    values = pretrain.get_config("tiny")
    for name, value in changes.items():
        values.data[name] = value
    with pytest.raises(ConfigError, match=message):
        check_batch(resolve(values), make_mesh(mesh))


needs_libtpu = pytest.mark.skipif(
    os.environ.get("OMNI_JAX_SLOW") != "1" or importlib.util.find_spec("libtpu") is None,
    reason="compiles for minutes: set OMNI_JAX_SLOW=1 and install libtpu (pip install 'jax[tpu]')",
)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("size", "peak_gb", "wire_gb", "flops"),
    [("qwen3_30b_a3b", 20.7, 191.2, 5.336e14), ("mixtral_8x7b", 25.44, 295.2, 1.763e15)],
)
def test_budgets_on_64_chips(size, peak_gb, wire_gb, flops, tmp_path):
    """Memory and FLOPs at most MaxText's at the same setting, bytes on the wire at most 0.8 of its."""
    command = [f"--config=configs/pretrain.py:{size}", "--topology=v5p:4x4x4", f"--hlo={tmp_path}/hlo"]
    values = planned(tmp_path, *command)
    assert values["peak_bytes"] <= peak_gb * 1e9
    assert sum(values["collective_bytes"].values()) <= wire_gb * 1e9
    assert values["program_flops"] <= flops
    check_gathers((tmp_path / "hlo").read_text(), resolve(pretrain.get_config(size)))


@pytest.mark.slow
@needs_libtpu
def test_a_step_of_mimi_fits_one_chip_of_16_gb(tmp_path):
    """Eight rows of two seconds; what is there before the step and what it needs beside that."""
    size = ["--config.data.rows=8", "--config.recipe.segment_samples=48000"]
    values = planned(tmp_path, "--config=configs/codec_recipes.py:mimi", "--topology=v5e:1x1", "--memory_only", *size)
    assert values["fits"] and values["state_bytes"] + values["temp_bytes"] <= 8e9


def planned(tmp_path, *arguments):
    """In a process of its own, which may load libtpu."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    command = [sys.executable, "-m", "omni_jax.plan", *arguments, f"--json={tmp_path}/plan.json"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return json.loads((tmp_path / "plan.json").read_text())
