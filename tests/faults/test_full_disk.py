"""A run on a disk that fills while a checkpoint is written: it stops, or waits for room, as it was told to."""

import shutil
import subprocess
import sys

import pytest
from toy_runs import DEADLINE_S, ENVIRONMENT, ROOT, TOY, curve, finish, start

from omni_jax.checkpoint import load_manifest

STEPS, DISK_KB, LEFT_BYTES = 30, 4096, 90_000
# What shall be there at the end is copied off the disk, which goes with its namespace.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size}k none {disk} || exit 77
{python} {toy} --workdir={disk}/run --steps={steps} --checkpoint_every=5 --step_s=0.2 {flags} > {log} 2>&1 & run=$!
{meanwhile}
wait $run; code=$?
rm -f {disk}/filler
cp -r {disk}/run {kept}
exit $code
"""
# All but some pages are taken: less than a save needs, more than the bytes of its arrays.
FILL = """
until [ -e {disk}/run/checkpoints/5/commit.json ]; do kill -0 $run || break; sleep 0.01; done
head -c $(( $(df --output=avail -B1 {disk} | tail -n 1) - {left} )) /dev/zero > {disk}/filler
"""
FILL_AND_MAKE_ROOM = (
    FILL
    + """
until grep -q 'waiting for room' {log}; do kill -0 $run || break; sleep 0.1; done
sleep 1
rm {disk}/filler
"""
)


def run_on_a_small_disk(tmp_path, flags, meanwhile):
    """Exit code, output, and the workdir as it was at the end."""
    if not shutil.which("unshare"):
        pytest.skip("mounts a small disk with unshare, of util-linux")
    disk = tmp_path / "disk"
    disk.mkdir()
    names = {"left": LEFT_BYTES, "disk": disk, "log": tmp_path / "log", "kept": tmp_path / "kept"}
    script = ON_A_SMALL_DISK.format(
        **names,
        size=DISK_KB,
        python=sys.executable,
        toy=TOY,
        steps=STEPS,
        flags=flags,
        meanwhile=meanwhile.format(**names),
    )
    command = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode in (1, 77) and not names["log"].exists():
        pytest.skip("no right to mount a small disk here")
    return done.returncode, names["log"].read_text(), names["kept"]


def test_a_run_stops_when_the_disk_fills_and_keeps_the_checkpoint_before(tmp_path):
    code, said, workdir = run_on_a_small_disk(tmp_path, "--on_full_disk=stop", FILL)
    assert code == 2
    assert "error:" in said and ("the disk is full" in said or "MB free" in said)
    # Orbax closes its event loop beneath the writes that have not failed yet, and those say so; nothing of ours may.
    assert f'File "{ROOT / "omni_jax"}' not in said and f'File "{TOY}' not in said
    assert load_manifest(workdir).step >= 5
    finish(start(workdir, STEPS, "--step_s=0"))
    assert curve(workdir) == whole_curve(tmp_path)


def test_a_run_waits_for_room_and_ends_as_if_it_had_always_been_there(tmp_path):
    code, said, workdir = run_on_a_small_disk(tmp_path, "--on_full_disk=wait", FILL_AND_MAKE_ROOM)
    assert code == 0, said
    assert said.count("waiting for room") == 1
    assert load_manifest(workdir).step == STEPS
    assert curve(workdir) == whole_curve(tmp_path)


def whole_curve(tmp_path):
    finish(start(tmp_path / "whole", STEPS, "--step_s=0"))
    return curve(tmp_path / "whole")
