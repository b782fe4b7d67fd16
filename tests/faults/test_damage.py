"""Every file of the newest checkpoint, damaged in every way: always found, always named, the one before is used."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omni_jax.checkpoint import Checkpointer, CheckpointError, Manifest, load_params
from omni_jax.config import Config

PARAMS = {f"layer_{index}": np.full((8, 16), index, np.float32) for index in range(3)}
STEPS = (3, 7)


def at(step):
    return jax.tree.map(lambda leaf: leaf + step, PARAMS)


def save(workdir, steps=STEPS):
    checkpointer = Checkpointer(workdir)
    for step in steps:
        params = at(step)
        checkpointer.save(Manifest(step, Config(), (0, 1)), params, optax.adam(1e-3).init(params))
    checkpointer.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    save(workdir)
    return workdir


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    bit = np.random.default_rng(len(data)).integers(8 * len(data))
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, remove, flip_a_bit])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_used(whole, tmp_path, damage, capsys):
    newest = whole / "checkpoints" / str(STEPS[-1])
    files = [path.relative_to(newest) for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 15
    for number, name in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(whole, workdir)
        damage(workdir / "checkpoints" / str(STEPS[-1]) / name)
        jax.tree.map(np.testing.assert_array_equal, load_params(workdir)[1], at(expected_step_of_a_reader(name)))
        capsys.readouterr()
        like = jax.tree.map(jnp.asarray, PARAMS)
        checkpointer = Checkpointer(workdir)
        restored = checkpointer.restore(Config(), like, optax.adam(1e-3).init(like))
        assert restored.manifest.step == STEPS[0], name
        jax.tree.map(np.testing.assert_array_equal, restored.params, at(STEPS[0]))
        said = capsys.readouterr().err
        assert f"checkpoints/{STEPS[-1]} is damaged" in said and "set aside" in said, name
        assert name.name in said or "before the commit marker" in said
        assert (workdir / "checkpoints" / "set_aside" / str(STEPS[-1]) / "params").is_dir()
        checkpointer.close()
        shutil.rmtree(workdir)


def expected_step_of_a_reader(name):
    """Readers of parameters do not look at the optimizer's files."""
    markers = name.name.startswith(("commit.", "sha256."))
    return STEPS[0] if markers or name.parts[0] in ("params", "extra") else STEPS[-1]


def test_orbax_alone_restores_flipped_bits(whole, tmp_path):
    """Why the hashes are there. When this fails, they may go."""
    import orbax.checkpoint as ocp

    shutil.copytree(whole, tmp_path / "copy")
    path = tmp_path / "copy" / "checkpoints" / str(STEPS[-1]) / "params"
    data = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    restored_wrong = 0
    for seed in range(8):
        original = bytearray(data.read_bytes())
        changed = bytearray(original)
        changed[np.random.default_rng(seed).integers(len(changed))] ^= 1
        data.write_bytes(changed)
        try:
            ocp.StandardCheckpointer().restore(path)
            restored_wrong += 1
        except Exception:
            pass
        data.write_bytes(original)
    assert restored_wrong > 0


def test_a_save_that_fails_in_the_background_is_told(tmp_path, monkeypatch):
    save(tmp_path, (1,))
    checkpointer = Checkpointer(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("omni_jax.checkpoint.checkpointer.write_hashes", full)
    checkpointer.save(Manifest(2, Config(), (0, 1)), at(2), {"count": np.zeros(1)})
    with pytest.raises(CheckpointError, match="the disk is full"):
        checkpointer.wait()
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path)[1], at(1))


SAVE_UNTIL_FULL = """
import sys, numpy as np
from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.config import Config
checkpointer = Checkpointer(sys.argv[1], keep=9)
for step in range(1, 9):
    params = {"w": np.random.default_rng(step).integers(0, 2**31, 2**20).astype(np.int32)}
    checkpointer.save(Manifest(step, Config(), (0, 1)), params, {"count": np.zeros(1)})
    checkpointer.wait()
"""


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(tmp_path):
    """A disk of 20 MB, made where a user may mount one; each checkpoint takes 4 MB."""
    mounted = ["unshare", "-rm", "sh", "-c"]
    probe = f"mount -t tmpfs -o size=20m none {tmp_path}"
    if not shutil.which(mounted[0]) or subprocess.run([*mounted, probe], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    check = "from omni_jax.checkpoint import load_manifest; import sys; print(load_manifest(sys.argv[1]).step)"
    command = f'{probe} && cd {Path(__file__).parents[2]} && "$0" -c "$1" {tmp_path}; "$0" -c "$2" {tmp_path}'
    done = subprocess.run([*mounted, command, sys.executable, SAVE_UNTIL_FULL, check], capture_output=True, text=True)
    assert "a checkpoint needs" in done.stderr or "the disk is full" in done.stderr
    assert int(done.stdout) >= 2
