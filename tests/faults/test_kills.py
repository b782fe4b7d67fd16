"""One process that is killed, told to stop, or fed with NaN.

With OMNI_JAX_SLOW=1 as many data workers are killed as trainings.
"""

import os
import random
import signal
import time

import numpy as np
import pytest
from toy_runs import bad_steps, curve, data_workers, finish, start, wait_for_step, wait_until

from omni_jax.checkpoint import load_manifest, load_params
from omni_jax.checkpoint.directory import committed_steps
from omni_jax.checkpoint.integrity import is_committed
from omni_jax.training.metrics import read_metrics

KILLS, KILLS_IN_A_SAVE, STEPS = 20, 5, 600
KILLS_OF_WORKERS = KILLS if os.environ.get("OMNI_JAX_SLOW") == "1" else 3
CRASHED = 1
FLAGS = ("--step_s=0.01", "--checkpoint_every=3")
NOTICE_S = 30.0
HELD_S = 3.0  # to get from the log's first line into the step that is held


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir, STEPS, "--step_s=0", "--checkpoint_every=100"))
    return workdir


def test_kill_9_at_random_moments_changes_nothing(whole, tmp_path):
    dice = random.Random(7)
    for _ in range(KILLS):
        process = start(tmp_path, STEPS, *FLAGS)
        begun = read_metrics(tmp_path)[-1:]
        wait_for_step(tmp_path, (begun[0]["step"] if begun else 0) + 1, process)
        time.sleep(dice.uniform(0.0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert read_metrics(tmp_path)[-1]["step"] < STEPS, "the run has ended too early to be killed"
    finish(start(tmp_path, STEPS, "--step_s=0", "--checkpoint_every=100"))
    assert curve(tmp_path) == curve(whole)
    for name, value in load_params(whole)[1].items():
        np.testing.assert_array_equal(load_params(tmp_path)[1][name], value)


def test_ctrl_z_for_longer_than_a_stall_may_last_changes_nothing(whole, tmp_path):
    process = start(tmp_path, STEPS, "--step_s=0.001", "--checkpoint_every=100", "--stall_timeout_s=4")
    wait_for_step(tmp_path, 10, process)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(8.0)
    assert read_metrics(tmp_path)[-1]["step"] < STEPS, "the run has ended too early to be stopped"
    os.kill(process.pid, signal.SIGCONT)
    finish(process)
    assert curve(tmp_path) == curve(whole)


def test_kill_9_of_data_workers_at_random_moments_changes_nothing(whole, tmp_path):
    dice = random.Random(11)
    for _ in range(KILLS_OF_WORKERS):
        process = start(tmp_path, STEPS, *FLAGS, "--workers=2")
        begun = read_metrics(tmp_path)[-1:]
        wait_for_step(tmp_path, (begun[0]["step"] if begun else 0) + 1, process)
        time.sleep(dice.uniform(0.0, 0.25))
        os.kill(dice.choice(data_workers(process)), signal.SIGKILL)
        assert "was terminated unexpectedly with exit code -9" in finish(process, CRASHED)
    finish(start(tmp_path, STEPS, "--step_s=0", "--checkpoint_every=100"))
    assert curve(tmp_path) == curve(whole)


def test_kill_9_while_a_save_goes_on_leaves_the_one_before(whole, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    for _ in range(KILLS_IN_A_SAVE):
        process = start(tmp_path, STEPS, *FLAGS)
        wait_for_step(tmp_path, 4 + max([0, *committed_steps(checkpoints)]), process)
        before = unfinished(checkpoints)
        while not unfinished(checkpoints) - before:
            assert process.poll() is None, process.communicate()[0]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        committed = committed_steps(checkpoints)
        assert not committed or load_manifest(tmp_path).step == committed[-1]  # none: killed in the first save
    finish(start(tmp_path, STEPS, "--step_s=0", "--checkpoint_every=100"))
    assert curve(tmp_path) == curve(whole)


def test_kill_9_in_the_step_after_a_save_leaves_no_gap_in_the_log(whole, tmp_path):
    process = start(tmp_path, 8, "--hold_at=4", "--checkpoint_every=3")
    wait_until((tmp_path / "checkpoints" / "3" / "commit.json").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert "going on from step 3" in finish(start(tmp_path, 8, "--step_s=0"))
    assert curve(tmp_path) == curve(whole)[:8]


def unfinished(checkpoints):
    return {path.name for path in checkpoints.iterdir() if path.name[0].isdecimal() and not is_committed(path)}


def test_sigterm_saves_leaves_in_time_and_repeats_nothing(whole, tmp_path):
    process = start(tmp_path, 60, "--step_s=0.2", "--checkpoint_every=1000")
    wait_for_step(tmp_path, 5, process)
    process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    output = finish(process, 128 + signal.SIGTERM)
    assert time.monotonic() - told < NOTICE_S
    assert "saving a checkpoint" in output
    step = load_manifest(tmp_path).step
    assert read_metrics(tmp_path)[-1]["step"] == step
    assert f"going on from step {step}" in finish(start(tmp_path, 60, "--step_s=0"))
    assert curve(tmp_path) == curve(whole)[:60]


def test_a_step_that_does_not_end_in_time_is_given_up_and_says_so(tmp_path):
    """Not with the code of a saved stop: launchers may believe it."""
    process = start(tmp_path, 60, "--hold_at=3", "--checkpoint_every=1000", "--grace_s=1")
    wait_for_step(tmp_path, 1, process)
    time.sleep(HELD_S)
    process.send_signal(signal.SIGTERM)
    assert "not saved within --grace_s=1 s" in finish(process, 75)
    assert not list((tmp_path / "checkpoints").glob("*/commit.json"))


@pytest.mark.parametrize(("number", "pause_s"), [(signal.SIGTERM, 2.5), (signal.SIGINT, 0.1)])
def test_a_second_signal_ends_at_once(tmp_path, number, pause_s):
    process = start(tmp_path, 60, "--hold_at=3", "--checkpoint_every=1000")
    wait_for_step(tmp_path, 1, process)  # known once the second step was started
    time.sleep(HELD_S)
    process.send_signal(number)
    time.sleep(pause_s)
    process.send_signal(number)
    told = time.monotonic()
    finish(process, 128 + number)
    assert time.monotonic() - told < 2.0
    assert not list((tmp_path / "checkpoints").glob("*/commit.json"))


def test_nan_in_one_step_is_skipped_counted_and_written_down(tmp_path):
    finish(start(tmp_path, 20, "--step_s=0", "--nan_at=7"))
    (record,) = bad_steps(tmp_path)
    assert (record["step"], record["kind"]) == (7, "not finite")
    assert [step for step, *_ in curve(tmp_path)] == [step for step in range(1, 21) if step != 7]
    assert read_metrics(tmp_path)[-1]["parts"]["skipped_steps"] == 1


def test_three_nan_steps_in_a_row_go_back_and_leave_their_data_out(whole, tmp_path):
    flags = ("--nan_at=12", "--nan_batches=3", "--max_bad_steps=3", "--checkpoint_every=5")
    output = finish(start(tmp_path, 20, "--step_s=0", *flags))
    assert "going on from step 10" in output
    assert [record["step"] for record in bad_steps(tmp_path)] == [12, 13, 14]
    found = curve(tmp_path)
    assert [step for step, *_ in found] == list(range(1, 21))
    assert found[:10] == curve(whole)[:10]
    data, whole_data = ([rows for *_, rows in values] for values in (found, curve(whole)))
    assert data[10:] == whole_data[15:25], "batch 15 was on its way when the third bad step was seen"
