"""A checkpoint is whole or absent, and belongs to one configuration and one codec."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

from omni_jax.checkpoint import (
    Checkpointer,
    CheckpointError,
    Manifest,
    load_codec,
    load_manifest,
    load_params,
    params_sha256,
)
from omni_jax.checkpoint.directory import committed_steps, kept_steps
from omni_jax.checkpoint.manifest import LAYOUT_VERSION
from omni_jax.config import Config, MeshConfig, OptimizerConfig, TrainingConfig
from omni_jax.model_config import ModelConfig, TransformerConfig
from omni_jax.operations import Operations
from omni_jax.parallel.mesh import make_mesh
from omni_jax.parallel.sharding import ParamAxes
from omni_jax.training.stages import run_stage

PARAMS = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}}


def manifest(step, config=None, **values):
    return Manifest(step, config or Config(), (0, 1), **values)


def plus(params, number):
    return jax.tree.map(lambda leaf: leaf + number, params)


def save(workdir, *steps, config=None, params=None, **values):
    params = PARAMS if params is None else params
    checkpointer = Checkpointer(workdir, keep=2)
    opt_state = optax.adam(1e-3).init(params)
    for step in steps:
        checkpointer.save(manifest(step, config, **values), plus(params, step), opt_state)
    checkpointer.wait()
    return checkpointer, opt_state


def test_restores_the_last_state_exactly(tmp_path):
    checkpointer, opt_state = save(tmp_path, 3, 7, data_state=b"\x00\xff", codec_sha256="abc")
    like = jax.tree.map(jnp.asarray, PARAMS)
    restored = checkpointer.restore(Config(), like, opt_state, "abc")
    assert restored.manifest == manifest(7, data_state=b"\x00\xff", codec_sha256="abc")
    jax.tree.map(np.testing.assert_array_equal, restored.params, plus(PARAMS, 7))
    assert jax.tree.structure(restored.opt_state) == jax.tree.structure(opt_state)


def test_keeps_the_last_ones_only(tmp_path):
    checkpointer, _ = save(tmp_path, 1, 2, 3)
    checkpointer.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert Checkpointer(tmp_path).restore(Config(), PARAMS, ()) is None
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_params(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere.*train the stage first"):
        load_params(tmp_path / "nowhere")


def test_another_config_is_an_error_that_names_the_keys(tmp_path):
    checkpointer, opt_state = save(tmp_path, 1)
    other = Config(optimizer=OptimizerConfig(learning_rate=0.5), training=TrainingConfig(steps=7))
    with pytest.raises(CheckpointError, match=r"optimizer\.learning_rate: 0\.001 -> 0\.5\): give another --workdir"):
        checkpointer.restore(other, PARAMS, opt_state)


def test_a_longer_run_of_the_same_config_goes_on(tmp_path):
    checkpointer, opt_state = save(tmp_path, 1)
    longer = Config(training=TrainingConfig(steps=10**6))
    assert checkpointer.restore(longer, jax.tree.map(jnp.asarray, PARAMS), opt_state).manifest.step == 1


def test_another_codec_is_an_error(tmp_path):
    checkpointer, opt_state = save(tmp_path, 1, codec_sha256="1" * 64)
    with pytest.raises(CheckpointError, match="codec 111111111111, not of 222222222222"):
        checkpointer.restore(Config(), PARAMS, opt_state, "2" * 64)


def test_load_codec_compares_the_fingerprint(tmp_path):
    save(tmp_path, 1, config=Config(stage="codec"))
    _, params = load_codec(tmp_path)
    assert jax.tree.structure(load_codec(tmp_path, params_sha256(params))[1]) == jax.tree.structure(PARAMS)
    with pytest.raises(CheckpointError, match="use the codec that it was trained with"):
        load_codec(tmp_path, "0" * 64)


def test_a_model_is_not_a_codec(tmp_path):
    save(tmp_path, 1, config=Config(stage="duplex"))
    with pytest.raises(CheckpointError, match="holds stage 'duplex', want a codec"):
        load_codec(tmp_path)


def test_another_layout_is_an_error(tmp_path):
    save(tmp_path, 1, layout_version=LAYOUT_VERSION + 1)
    with pytest.raises(CheckpointError, match=f"layout {LAYOUT_VERSION + 1}"):
        load_manifest(tmp_path)


def test_the_fingerprint_sees_every_byte_and_every_name():
    fingerprint = params_sha256(PARAMS)
    changed = {"layer": PARAMS["layer"] | {"bias": np.asarray([1, 1, 1 + 2**-23], np.float32)}}
    renamed = {"layer": {"kernel": PARAMS["layer"]["kernel"], "scale": PARAMS["layer"]["bias"]}}
    assert len({fingerprint, params_sha256(changed), params_sha256(renamed)}) == 3
    assert fingerprint == params_sha256(jax.tree.map(jnp.asarray, PARAMS))


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path):
    checkpointer, opt_state = save(tmp_path, 1)
    endless = {"kernel": np.broadcast_to(np.float32(0), (2**50,))}
    with pytest.raises(CheckpointError, match=r"free some space.*the last checkpoint is whole"):
        checkpointer.save(manifest(2), endless, opt_state)
    checkpointer.wait()
    assert load_manifest(tmp_path).step == 1


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write a checkpoint"):
        Checkpointer(tmp_path / "file")


KILLED = """
import sys, numpy as np
from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.config import Config
checkpointer = Checkpointer(sys.argv[1])
rng = np.random.default_rng(0)
for step in (1, 2):
    params = {str(i): rng.integers(0, 2**31, 2**21).astype(np.int32) for i in range(16)}
    checkpointer.save(Manifest(step, Config(), (0, 1)), params, {"count": np.zeros(1)})
    if step == 1:
        checkpointer.wait()
        print("saved", flush=True)
checkpointer.wait()
"""


def test_a_killed_save_leaves_nothing_that_is_taken_for_whole(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "saved\n"
    deadline = time.monotonic() + 60
    while not list((tmp_path / "checkpoints").glob("2*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "checkpoints").glob("2*")), "the second save had begun"
    step = load_manifest(tmp_path).step
    rng = np.random.default_rng(0)
    expected = [{str(i): rng.integers(0, 2**31, 2**21).astype(np.int32) for i in range(16)} for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path)[1], expected[step - 1])
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest_step() == step
    # Orbax removes what the killed save left in the background.
    while list((tmp_path / "checkpoints").glob("*tmp*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {str(s) for s in range(1, step + 1)}
    assert dataclasses.is_dataclass(checkpointer.restore(Config(), expected[0], {"count": np.zeros(1)}).manifest)


def test_a_changed_config_goes_on_where_that_is_allowed(tmp_path, capsys):
    save(tmp_path, 1)[0].close()
    other = Config(optimizer=OptimizerConfig(learning_rate=0.5))
    checkpointer = Checkpointer(tmp_path, operations=Operations(allow_config_change=True))
    like = jax.tree.map(jnp.asarray, PARAMS)
    assert checkpointer.restore(other, like, optax.adam(1e-3).init(like)).manifest.step == 1
    assert "going on with a changed config: optimizer.learning_rate: 0.001 -> 0.5" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="another model"):
        checkpointer.restore(Config(stage="align"), like, optax.adam(1e-3).init(like))


@pytest.mark.parametrize(
    ("before", "after"),
    [({"fsdp": 8}, {"fsdp": 2, "tensor": 4}), ({"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 4, "expert": 2})],
)
def test_a_checkpoint_moves_to_another_mesh(tmp_path, before, after):
    """The program changes too: what was saved by scanned layers may go on unrolled."""
    spec = ParamAxes(("layers", "embed", "mlp"), (3, 16, 8)).spec

    def place(mesh):
        whole = jnp.arange(3 * 16 * 8, dtype=jnp.float32).reshape(3, 16, 8)
        return {"w": jax.device_put(whole, NamedSharding(make_mesh(mesh), spec))}

    def config(mesh, scan):
        return Config(mesh=mesh, model=ModelConfig(transformer=TransformerConfig(scan_layers=scan)))

    meshes = MeshConfig(**before), MeshConfig(**after)
    save(tmp_path, 1, config=config(meshes[0], True), params=place(meshes[0]))[0].close()
    like = place(meshes[1])
    found = Checkpointer(tmp_path).restore(config(meshes[1], False), like, optax.adam(1e-3).init(like))
    np.testing.assert_array_equal(found.params["w"], like["w"] + 1)
    assert found.params["w"].sharding == found.opt_state[0].mu["w"].sharding == like["w"].sharding


def test_the_last_the_permanent_and_the_best_are_kept():
    losses = {2: 3.0, 4: 1.0, 6: 2.0, 8: 2.5, 10: 2.4}
    metrics = {step: {"loss": loss} for step, loss in losses.items()}
    assert kept_steps(metrics, keep=2, keep_every=0, best_metric="") == {8, 10}
    assert kept_steps(metrics, keep=1, keep_every=6, best_metric="") == {6, 10}
    assert kept_steps(metrics, keep=1, keep_every=0, best_metric="loss") == {4, 10}


def test_the_best_is_known_after_a_restart(tmp_path):
    for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0), (4, 4.0)):
        checkpointer = Checkpointer(tmp_path, keep=1, operations=Operations(best_metric="loss"))
        checkpointer.save(manifest(step), PARAMS, {"count": np.zeros(1)}, {"loss": loss})
        checkpointer.close()
    assert committed_steps(tmp_path / "checkpoints") == [2, 4]


def test_a_checkpoint_of_the_first_layout_can_be_read_but_not_resumed(tmp_path):
    checkpointer, opt_state = save(tmp_path, 1, layout_version=1)
    for path in (tmp_path / "checkpoints" / "1").glob("*.json"):
        path.unlink()  # layout 1 had neither hashes nor marker
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path)[1], plus(PARAMS, 1))
    with pytest.raises(CheckpointError, match=r"layout 1.*cannot go on with"):
        checkpointer.restore(Config(), PARAMS, opt_state)


def test_a_failed_save_is_told_at_the_next_look(tmp_path, monkeypatch):
    checkpointer, _ = save(tmp_path, 1)
    monkeypatch.setattr("omni_jax.checkpoint.checkpointer.write_hashes", lambda *_: 1 / 0)
    checkpointer.save(manifest(2), PARAMS, {"count": np.zeros(1)})
    deadline = time.monotonic() + 60
    while (outcome := checkpointer.outcome()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "ZeroDivisionError" in str(outcome.error)
    assert committed_steps(tmp_path / "checkpoints") == [1]


def test_a_save_holds_what_the_arrays_were(tmp_path):
    """Although the next step takes their memory at once, and the ones of numpy are written over."""
    donating = jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree), donate_argnums=0)
    on_device = {"w": jnp.full((512, 512), 3.0)}
    on_host = {"count": np.ones(4)}
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(manifest(1), on_device, on_host)
    jax.block_until_ready(donating(on_device))
    on_host["count"][:] = 7
    checkpointer.wait()
    assert on_device["w"].is_deleted()
    restored = checkpointer.restore(Config(), {"w": jnp.zeros((512, 512))}, {"count": np.zeros(4)})
    np.testing.assert_array_equal(restored.params["w"], np.full((512, 512), 3.0))
    np.testing.assert_array_equal(restored.opt_state["count"], np.ones(4))


@pytest.mark.parametrize(
    ("workdir", "remedy"),
    [
        ("gs://bucket/run", "pip install gcsfs"),
        (Path("s3://bucket/run"), "s3fs"),
        ("ftp://host/run", "want a directory"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_it_becomes_a_folder(workdir, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for package in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    for use in (Checkpointer, load_params, lambda workdir: run_stage(Config(), workdir)):
        with pytest.raises(CheckpointError, match=remedy):
            use(workdir)
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]
