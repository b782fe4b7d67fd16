"""The sweep: what need not be compiled, what fails, and going on after an interruption. Compilation itself is replaced:
tests/planning/test_plan.py compiles."""

import dataclasses
import json

import pytest

from configs import pretrain
from omni_jax import plan
from omni_jax.config import resolve
from omni_jax.errors import UserError
from omni_jax.planning import sweep as sweeping
from omni_jax.planning.plan import Plan, Target, argument_bytes
from omni_jax.planning.topology import CHIPS

TARGET = Target("cpu:8")
ARGUMENTS = [
    *("--config=configs/pretrain.py:qwen3_30b_a3b", "--topology=cpu:8", "--sweep"),
    *("--config.model.transformer.num_layers=1", "--config.model.vocab_size=1024"),
]


def one_layer():
    values = pretrain.get_config("qwen3_30b_a3b")
    values.model.transformer.num_layers, values.model.vocab_size = 1, 1024
    return resolve(values)


@pytest.fixture
def compiled(monkeypatch):
    """Which settings were compiled. Tensor 4 fails; 512 rows do not fit with fsdp alone."""
    seen = []

    def make_plan(config, target):
        mesh, rows = config.mesh, config.data.rows
        seen.append((mesh.fsdp, mesh.tensor, rows, config.model.transformer.remat))
        if mesh.tensor == 4:
            raise NotImplementedError("the compiler gives up\nfor its own reasons")
        values = {"devices": 8, "predicted_step_seconds": 1.0, "predicted_mfu": 0.1, "peak_bytes": 1e9}
        return Plan(values | {"fits": rows < 512, "compile_seconds": 1.0}, "")

    def some(config, target):
        return [one for one in candidates(config, target) if one.mesh.tensor != 2 and one.mesh.expert == 1]

    candidates = sweeping.candidates
    monkeypatch.setattr(sweeping, "candidates", some)
    monkeypatch.setattr(sweeping, "make_plan", make_plan)
    return seen


def test_one_failure_does_not_end_a_sweep_and_smaller_settings_rule_larger_ones_out(compiled):
    results = sweeping.sweep(one_layer(), TARGET)
    assert len(results) == 8
    assert (8, 1, 512, "full") in compiled
    assert (8, 1, 512, "minimal") not in compiled  # full keeps less, and did not fit
    errors = [result["error"] for result in results if "error" in result]
    assert errors.count("the compiler gives up") == 4
    assert "not compiled: 512 rows with remat full do not fit" in errors
    assert results[0]["fits"] and results[0]["change"]["rows"] == 256


def test_a_sweep_goes_on_where_it_was_interrupted(compiled, monkeypatch, tmp_path):
    path, whole = tmp_path / "sweep.json", sweeping.make_plan

    def interrupted(config, target):
        if len(compiled) == 3:
            raise KeyboardInterrupt
        return whole(config, target)

    monkeypatch.setattr(sweeping, "make_plan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plan.main([*ARGUMENTS, f"--json={path}"])
    kept = json.loads(path.read_text())
    assert len(kept) == 4  # three compiled, one ruled out
    monkeypatch.setattr(sweeping, "make_plan", whole)
    assert plan.main([*ARGUMENTS, f"--json={path}"]) == 0
    assert len(compiled) == len(set(compiled)) == 7
    assert len(json.loads(path.read_text())) == 8
    assert plan.main([*ARGUMENTS, "--config.data.row_positions=2048", f"--json={path}"]) == 0
    assert len(compiled) == 14  # another config: nothing of the file holds for it


def test_what_its_arguments_alone_fill_is_not_compiled(compiled, monkeypatch):
    config = one_layer()
    held = argument_bytes(dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, fsdp=8)), TARGET)
    monkeypatch.setattr(sweeping, "chip_of", lambda _: dataclasses.replace(CHIPS["v5p"], hbm_bytes=held - 1))
    results = sweeping.sweep(config, TARGET)
    assert not compiled
    assert all(result["error"].startswith("not compiled: ") for result in results)


@pytest.mark.parametrize("text", ["{}", "no JSON", '[{"other": 1}]'])
def test_a_file_of_something_else_is_not_overwritten(compiled, tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UserError, match="remove it, or give another"):
        plan.main([*ARGUMENTS, f"--json={path}"])
    assert path.read_text() == text and not compiled
