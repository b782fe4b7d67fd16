"""The loop on a model of two numbers: logs, resumes exactly, stops cleanly."""

import errno
import json
import signal
import struct
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omni_jax.checkpoint import Checkpointer, CheckpointError, load_manifest
from omni_jax.checkpoint.directory import committed_steps
from omni_jax.config import Config, TrainingConfig
from omni_jax.operations import Operations
from omni_jax.training import loop
from omni_jax.training.goodput import read_attempts
from omni_jax.training.guard import guarded, new_guard
from omni_jax.training.loop import Run, Stopped, TrainingError, resume, train
from omni_jax.training.metrics import read_metrics
from omni_jax.training.saving import Saver
from omni_jax.training.state import TrainState, fresh_state

OPTIMIZER = optax.adam(0.1)


class Numbers:
    """Batches 1, 2, 3 ..."""

    def __init__(self):
        self.number = 0

    def __next__(self):
        self.number += 1
        return np.float32(self.number)

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


def initial_state(seed=0, guard=None):
    everywhere = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = {"w": jnp.ones(2)}
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        TrainState(params, OPTIMIZER.init(params), jnp.int32(0), jax.random.key(seed), guard),
    )
    return fresh_state(params, OPTIMIZER, seed, abstract)


@jax.jit
def step_function(state, batch):
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step))
    loss, grads = jax.value_and_grad(lambda params: jnp.sum((params["w"] - batch - noise) ** 2))(state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1, state.key, state.guard), {"loss": loss, "noise": noise}


def run_to(workdir, steps, step_function=step_function, seed=0, operations=None, guard=None, evaluate=None, **training):
    workdir.mkdir(exist_ok=True)
    settings = {"log_every": 1, "checkpoint_every": 3, "tensorboard": False} | training
    operations = operations or Operations()
    checkpointer = Checkpointer(workdir, operations=operations)
    config = Config(training=TrainingConfig(steps=steps, **settings))
    run = Run(config, workdir, checkpointer, operations=operations)
    loader = Numbers()
    state = resume(run, initial_state(seed, guard), loader)
    try:
        return train(run, state, step_function, loader, examples=1, evaluate=evaluate)
    finally:
        run.checkpointer.close()


def losses(workdir):
    return [(record["step"], record["loss"]) for record in read_metrics(workdir)]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = run_to(tmp_path / "whole", 10, seed=5)
    run_to(tmp_path / "parts", 4, seed=5)
    resumed = run_to(tmp_path / "parts", 10, seed=99)  # the checkpoint's key counts, not the new seed's
    np.testing.assert_array_equal(whole.params["w"], resumed.params["w"])
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert [step for step, _ in losses(tmp_path / "parts")] == list(range(1, 11))


def test_metrics_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    def fail_at_6(state, batch):
        if batch == 6:
            raise RuntimeError("power cut")
        return step_function(state, batch)

    with pytest.raises(RuntimeError, match="power cut"):
        run_to(tmp_path, 10, fail_at_6)
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4, 5]
    assert load_manifest(tmp_path).step == 3
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "sta')
    run_to(tmp_path, 10)
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 11))


def test_logs_are_flat_json_with_seconds_that_go_on(tmp_path):
    run_to(tmp_path, 2)
    run_to(tmp_path, 4)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [set(record) for record in records] == [{"step", "stage", "loss", "parts", "seconds", "input_wait"}] * 4
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    assert set(records[0]["parts"]) == {"noise"}


def test_only_every_nth_step_the_first_and_the_last_are_logged(tmp_path):
    run_to(tmp_path, 7, log_every=3)
    assert [step for step, _ in losses(tmp_path)] == [1, 3, 6, 7]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_stops(tmp_path, number, code):
    def interrupted(state, batch):
        if batch == 5:
            signal.raise_signal(number)
        return step_function(state, batch)

    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run_to(tmp_path, 10, interrupted)
    assert stopped.value.code == code
    assert load_manifest(tmp_path).step == 5
    assert signal.getsignal(number) is before
    whole = run_to(tmp_path / "whole", 10)
    np.testing.assert_array_equal(run_to(tmp_path, 10).params["w"], whole.params["w"])


def with_gradient_norm(state, batch):
    new, metrics = step_function(state, batch)
    bad = jnp.isin(batch, jnp.asarray(BAD_BATCHES, jnp.float32))
    return new, metrics | {"gradient_norm": jnp.where(bad, jnp.nan, 1.0)}


BAD_BATCHES = [4, 5]
GUARDED = jax.jit(guarded(with_gradient_norm, 0.0))


def test_a_bad_step_leaves_no_trace_but_a_note(tmp_path):
    state = run_to(tmp_path, 7, GUARDED, guard=new_guard())
    records = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    assert [(record["step"], record["kind"], record["in_a_row"]) for record in records] == [
        (4, "not finite", 1),
        (5, "not finite", 2),
    ]
    assert records[0]["data_state_before"] == {"number": 3}
    assert int(state.guard.skipped) == 2 and int(state.guard.in_a_row) == 0
    assert int(state.opt_state[0].count) == 5
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 8))


def test_several_bad_steps_in_a_row_go_back_and_leave_their_data_out(tmp_path):
    """Two bad steps go back to step 3, with batch 6 next (the step after the second bad one was on its way)."""
    state = run_to(tmp_path, 7, GUARDED, operations=Operations(max_bad_steps=2), guard=new_guard())
    assert int(state.step) == 7 and int(state.guard.skipped) == 0
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 8))
    assert load_manifest(tmp_path).data_state == {"number": 10}


def test_a_run_that_diverged_stops_with_the_remedy(tmp_path):
    def diverged(state, batch):
        return step_function(state, batch)[0], {"loss": jnp.float32(np.nan), "gradient_norm": jnp.float32(np.nan)}

    with pytest.raises(TrainingError, match=r"5 bad steps in a row up to step 5.*no checkpoint.*lower optimizer"):
        run_to(tmp_path, 100, guarded(diverged, 0.0), checkpoint_every=10, guard=new_guard())


def test_going_back_in_vain_stops_too(tmp_path):
    with pytest.raises(TrainingError, match="going back to a checkpoint 2 times"):
        run_to(tmp_path, 100, jax.jit(guarded(bad_from_4, 0.0)), guard=new_guard())


def bad_from_4(state, batch):
    new, metrics = step_function(state, batch)
    return new, metrics | {"gradient_norm": jnp.where(batch >= 4, jnp.inf, 1.0)}


def test_held_out_numbers_are_logged_and_choose_the_best_checkpoint(tmp_path):
    """After step 4 they are the least; the last step is always evaluated."""
    values = iter([3.0, 1.0, 2.0, 2.5])
    operations = Operations(evaluate_every=2, best_metric="held_out/loss")
    evaluate = lambda params: {"held_out/loss": next(values)}  # noqa: E731
    run_to(tmp_path, 7, operations=operations, evaluate=evaluate, log_every=100, checkpoint_every=2)
    logged = [(record["step"], record["parts"].get("held_out/loss")) for record in read_metrics(tmp_path)]
    assert logged == [(1, None), (2, 3.0), (4, 1.0), (6, 2.0), (7, 2.5)]
    assert committed_steps(tmp_path / "checkpoints") == [4, 6, 7]
    assert "evaluation" in read_attempts(tmp_path)[-1]["seconds"]


def failing_writes(monkeypatch, failures):
    """The first `failures` writes of hashes fail."""
    from omni_jax.checkpoint import checkpointer

    real, calls = checkpointer.write_hashes, []

    def write(*arguments):
        calls.append(arguments)
        if len(calls) <= failures:
            raise OSError(errno.EIO, "Input/output error")
        real(*arguments)

    monkeypatch.setattr(checkpointer, "write_hashes", write)
    return calls


def test_a_failed_save_is_told_and_tried_again(tmp_path, monkeypatch, capsys):
    failing_writes(monkeypatch, failures=2)
    run_to(tmp_path, 9)
    assert capsys.readouterr().err.count("cannot write a checkpoint: Input/output error; saving again") == 2
    assert committed_steps(tmp_path / "checkpoints")[-1] == 9


def test_the_third_failed_save_in_a_row_stops_the_run(tmp_path, monkeypatch):
    calls = failing_writes(monkeypatch, failures=100)
    with pytest.raises(CheckpointError, match=r"3 saves in a row failed.*Input/output error"):
        run_to(tmp_path, 10**6)
    assert len(calls) == 3
    assert not list((tmp_path / "checkpoints").iterdir()), "nothing that takes up room"


def test_a_last_save_that_fails_is_tried_again(tmp_path, monkeypatch):
    failing_writes(monkeypatch, failures=1)
    run_to(tmp_path, 2)
    assert load_manifest(tmp_path).step == 2


def read_events(path):
    """(step, {tag: value}) of a TensorBoard file: records of length, checksum, Event protobuf, checksum."""
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    data, offset = path.read_bytes(), 0
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        event = event_pb2.Event.FromString(data[offset + 12 : offset + 12 + length])
        offset += length + 16
        for value in event.summary.value:
            tensor = value.tensor
            number = tensor.float_val[0] if tensor.float_val else np.frombuffer(tensor.tensor_content, np.float32)[0]
            yield event.step, value.tag, float(number)


def test_tensorboard_events_hold_the_same_losses(tmp_path):
    pytest.importorskip("clu")
    run_to(tmp_path, 3, tensorboard=True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = [(step, value) for step, tag, value in read_events(path) if tag == "loss"]
    np.testing.assert_allclose(found, losses(tmp_path), rtol=1e-5)


def test_the_loop_runs_outside_the_main_thread_too(tmp_path):
    thread = threading.Thread(target=run_to, args=(tmp_path, 2))
    thread.start()
    thread.join()
    assert [step for step, _ in losses(tmp_path)] == [1, 2]


def test_saves_by_time_too(tmp_path):
    def slow(state, batch):
        time.sleep(0.1)
        return step_function(state, batch)

    run_to(tmp_path, 6, slow, checkpoint_every=1000, operations=Operations(checkpoint_every_s=0.25, keep_every=1))
    steps = committed_steps(tmp_path / "checkpoints")
    assert steps[-1] == 6 and 2 <= len(steps) <= 3


def test_a_vote_that_arrives_late_saves_once(tmp_path, monkeypatch):
    """With several processes votes are read a step later, when this process has voted for the same save again."""

    class LateVotes:
        late = True

        def __init__(self, size):
            self.last = np.zeros(size, np.int32)

        def exchange(self, mine):
            before, self.last = self.last, mine
            return before

    monkeypatch.setattr(loop, "Votes", LateVotes)
    wishes = iter([False, True, True, False, True, False, False, False])
    monkeypatch.setattr(Saver, "time_is_up", lambda saver: next(wishes))
    run_to(tmp_path, 8, checkpoint_every=1000, operations=Operations(keep_every=1))
    assert committed_steps(tmp_path / "checkpoints") == [3, 6, 8]


def test_chosen_steps_are_profiled(tmp_path, capsys):
    run_to(tmp_path, 4, operations=Operations(profile_steps="2:3"))
    (trace,) = tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")
    assert b"step_function" in trace.read_bytes()
    assert "profile of steps 2 to 3" in capsys.readouterr().out


def test_the_previous_steps_metrics_are_read_while_a_step_runs(tmp_path):
    """A step is started before the metrics of the one before are asked for."""
    order = []

    class Loss:
        def __init__(self, number):
            self.number = number

        def __array__(self, dtype=None, copy=None):
            order.append(f"read {self.number}")
            return np.asarray(1.0, dtype)

    def ordered(state, batch):
        order.append(f"start {int(batch)}")
        return step_function(state, batch)[0], {"loss": Loss(int(batch))}

    run_to(tmp_path, 3, ordered)
    firsts = [entry for index, entry in enumerate(order) if entry not in order[:index]]
    assert firsts == ["start 1", "start 2", "read 1", "start 3", "read 2", "read 3"]


def test_nothing_is_left_behind_but_checkpoints_and_metrics(tmp_path):
    run_to(tmp_path, 2)
    time.sleep(0.1)
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["checkpoints", "goodput.json", "metrics.jsonl"]
