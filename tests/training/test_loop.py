"""The loop on a model of two numbers: logs, resumes exactly, stops cleanly."""

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

from omni_jax.checkpoint import Checkpointer, load_manifest
from omni_jax.config import Config, TrainingConfig
from omni_jax.training.loop import Run, Stopped, TrainingError, resume, train
from omni_jax.training.metrics import read_metrics
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


def initial_state(seed=0):
    everywhere = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = {"w": jnp.ones(2)}
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        TrainState(params, OPTIMIZER.init(params), jnp.int32(0), jax.random.key(seed)),
    )
    return fresh_state(params, OPTIMIZER, seed, abstract)


@jax.jit
def step_function(state, batch):
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step))
    loss, grads = jax.value_and_grad(lambda params: jnp.sum((params["w"] - batch - noise) ** 2))(state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1, state.key), {"loss": loss, "noise": noise}


def run_to(workdir, steps, step_function=step_function, seed=0, **training):
    workdir.mkdir(exist_ok=True)
    settings = {"log_every": 1, "checkpoint_every": 3, "tensorboard": False} | training
    run = Run(Config(training=TrainingConfig(steps=steps, **settings)), workdir, Checkpointer(workdir))
    loader = Numbers()
    state = resume(run, initial_state(seed), loader)
    try:
        return train(run, state, step_function, loader, examples=1)
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
    assert [set(record) for record in records] == [{"step", "stage", "loss", "parts", "seconds"}] * 4
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


def test_a_single_bad_loss_is_not_logged_and_does_not_stop(tmp_path):
    def bad_at_2(state, batch):
        state, metrics = step_function(state, batch)
        return state, metrics | {"loss": metrics["loss"] / (batch != 2)}

    run_to(tmp_path, 4, bad_at_2)
    assert [step for step, _ in losses(tmp_path)] == [1, 3, 4]


def test_a_run_that_diverged_stops_with_the_remedy(tmp_path):
    def diverged(state, batch):
        return state, {"loss": jnp.float32(np.nan)}

    with pytest.raises(TrainingError, match=r"not finite at step 5.*lower optimizer\.learning_rate"):
        run_to(tmp_path, 100, diverged)


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
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["checkpoints", "metrics.jsonl"]
