"""Where a run was killed, and how many processes go on, changes nothing about the batches that follow."""

import dataclasses
import json
import multiprocessing

import numpy as np
import pytest

from input_pipeline.test_loader import ALL_TASKS, assert_same, leaves, with_data
from omni_jax.config import DataConfig
from omni_jax.errors import UserError
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.shards import without_sizes

BATCHES, KILLS, FOLLOWING = 20, 20, 2
MAX_STATE_BYTES = 4096


@pytest.fixture(scope="module")
def long_run(config, codes):
    """A configuration, its batches without interruption, and the state before each, as a checkpoint keeps it."""
    everything = with_data(config, tasks=ALL_TASKS, patches=256)
    loader = make_loader(everything, "train", codes)
    states, batches = [], []
    for _ in range(BATCHES):
        states.append(json.dumps(loader.get_state()))
        batches.append(next(loader))
    loader.close()
    return everything, batches, states


def test_every_kill_point(long_run, codes):
    config, batches, states = long_run
    for at in np.random.default_rng(0).choice(BATCHES - FOLLOWING + 1, KILLS):
        loader = make_loader(config, "train", codes)
        loader.set_state(json.loads(states[at]))
        for expected in batches[at : at + FOLLOWING]:
            assert_same(next(loader), expected)
        loader.close()


def test_any_number_of_processes_goes_on(long_run, codes):
    config, batches, states = long_run
    state, done = json.loads(states[0]), 0
    for processes in (1, 2, 4, 1):
        mine = np.split(np.arange(4), processes)
        loaders = [make_loader(config, "train", codes, shards=shards.tolist()) for shards in mine]
        for loader in loaders:
            loader.set_state(state)
        for expected in batches[done : done + 3]:
            parts = zip(*(leaves(next(loader)) for loader in loaders), strict=True)
            for found, leaf in zip(parts, leaves(expected), strict=True):
                np.testing.assert_array_equal(np.concatenate(found), leaf)
        shards = {shard: part for loader in loaders for shard, part in loader.get_state()["shards"].items()}
        state, done = json.loads(json.dumps(loaders[0].get_state() | {"shards": shards})), done + 3
        for loader in loaders:
            loader.close()
    assert state == json.loads(states[done])


def test_a_shard_state_is_small(long_run):
    _, _, states = long_run
    assert max(len(json.dumps(shard)) for shard in json.loads(states[-1])["shards"].values()) < MAX_STATE_BYTES


def test_states_that_do_not_fit_are_refused(long_run, codes):
    config, _, states = long_run
    state, grown = json.loads(states[3]), json.loads(states[3])
    for shard in grown["shards"].values():
        shard["sizes"]["TEXT"] += 1
    older = {"shards": {"0": {"version": 1, "next": {}, "waiting": [], "positions": {}, "batches": 3}}}
    for other, wrong, message in (
        (config, older, "has layout 1, this version reads layout 2"),
        (with_data(config, shards=2), state, "--config.data.shards=4"),
        (with_data(config, rows=8), state, "--config.data.shards=4"),
        (with_data(config, tasks={"text": 1.0}), state, "resume with the data.tasks"),
        (config, grown, "the data have changed"),
    ):
        loader = make_loader(other, "train", codes)
        with pytest.raises(UserError, match=message):
            loader.set_state(wrong)
        loader.close()


def test_other_data_are_taken_where_that_is_allowed(long_run, codes):
    config, batches, states = long_run
    grown = json.loads(states[3])
    for shard in grown["shards"].values():
        shard["sizes"]["TEXT"] += 1
    loader = make_loader(config, "train", codes)
    loader.set_state(without_sizes(grown))
    assert_same(next(loader), batches[3])
    loader.close()


@pytest.mark.parametrize(
    ("rows", "rows_per_pool", "shards"), [(4, 1, 4), (64, 1, 64), (256, 1, 64), (64, 8, 8), (6, 1, 2)]
)
def test_virtual_shards_follow_from_the_batch(rows, rows_per_pool, shards):
    data = DataConfig(rows=rows, rows_per_pool=rows_per_pool)
    assert data.virtual_shards == shards
    assert dataclasses.replace(data, shards=1).virtual_shards == 1


def test_worker_processes_read_the_same_stream(long_run, codes):
    config, batches, states = long_run
    loader = make_loader(with_data(config, workers=2), "train", codes)
    assert_same(next(loader), batches[0])
    assert loader.get_state() == json.loads(states[1])
    loader.set_state(json.loads(states[8]))
    assert_same(next(loader), batches[8])
    loader.close()
    for worker in multiprocessing.active_children():  # grain kills one that is slow to stop, and does not wait for it
        worker.join(timeout=10)
    assert not multiprocessing.active_children()
