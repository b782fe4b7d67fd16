"""The omni model's training: sharded as on one device, resumed as uninterrupted, frozen where it should be."""

import contextlib
import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from omni_jax.checkpoint import Checkpointer, load_params
from omni_jax.config import MeshConfig
from omni_jax.errors import ConfigError
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh
from omni_jax.training.loop import Run, train
from omni_jax.training.metrics import read_metrics
from omni_jax.training.omni_stage import compile_on_first_batch, starting_params, starting_state
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.optimizer import parameter_path
from omni_jax.training.step import drop_own_codes
from omni_jax.types import ABSENT
from tests.training.batches import RepeatingLoader, random_batch, small_config

SHARDED_TOLERANCE = 2e-3  # float32 sums in another order, amplified by three Adam steps
MESH = MeshConfig(data=2, fsdp=2, expert=2)


class PowerCut(Exception):
    pass


class CutLoader(RepeatingLoader):
    """Ends the run after some batches, the way a power cut does."""

    def __init__(self, config, last_batch):
        super().__init__(config)
        self._last_batch = last_batch

    def __next__(self):
        if self.get_state()["index"] == self._last_batch:
            raise PowerCut
        return super().__next__()


def run_to(workdir, last_step, devices=1, **training):
    """Trains six steps in all, of which this run reaches `last_step`; every third step is saved."""
    workdir.mkdir(exist_ok=True)
    mesh_config = MESH if devices == 8 else MeshConfig()
    config = dataclasses.replace(small_config(steps=6, checkpoint_every=3, **training), mesh=mesh_config)
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    optimizer = omni_optimizer(config)
    run = Run(config, workdir, Checkpointer(workdir))
    loader = CutLoader(config, last_step)
    state = starting_state(run, mesh, optimizer, loader)
    with contextlib.suppress(PowerCut):
        state = train(run, state, compile_on_first_batch(config, mesh, optimizer), loader, config.data.rows)
    run.checkpointer.close()
    return None if last_step < 6 else jax.device_get(state.params)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Six uninterrupted steps on one device; the parameters and the workdir."""
    workdir = tmp_path_factory.mktemp("whole")
    return run_to(workdir, 6, codes_dropout=0.25), workdir


def losses(workdir):
    return [record["loss"] for record in read_metrics(workdir)]


def test_it_learns(whole):
    assert losses(whole[1])[-1] < 0.8 * losses(whole[1])[0]


def test_resumed_is_bit_identical_to_uninterrupted(whole, tmp_path):
    run_to(tmp_path, 4, codes_dropout=0.25)
    params = run_to(tmp_path, 6, codes_dropout=0.25)
    assert losses(tmp_path) == losses(whole[1])
    jax.tree.map(np.testing.assert_array_equal, params, whole[0])


def test_eight_devices_compute_what_one_does(whole, tmp_path):
    run_to(tmp_path, 3, devices=8, codes_dropout=0.25)
    np.testing.assert_allclose(losses(tmp_path), losses(whole[1])[:3], rtol=SHARDED_TOLERANCE)


def test_a_stage_starts_from_another_and_frozen_groups_stay(whole, tmp_path):
    run_to(tmp_path, 3, init_from=str(whole[1]), trainable=("audio_encoder", "audio_adapter"))
    params = load_params(tmp_path)[1]
    changed = {
        group
        for group, before in whole[0].items()
        if any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(params[group])))
    }
    assert changed == {"audio_encoder", "audio_adapter"}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["parts"]
    assert last["gradient_norm/audio_encoder"] > 0
    assert 0 < last["fill/padded_flops"] < 1
    assert last["gradient_norm/transformer"] == last["gradient_norm/vision_encoder"] == 0  # no backward pass for them


def test_a_stage_starts_from_parts_of_another(whole, tmp_path):
    config = small_config(init_from=f"transformer/*={whole[1]},text_*={whole[1]}")
    run, mesh = Run(config, tmp_path, Checkpointer(tmp_path)), make_mesh(config.mesh, jax.devices()[:1])
    params = starting_state(run, mesh, omni_optimizer(config), RepeatingLoader(config)).params
    run.checkpointer.close()
    jax.tree.map(np.testing.assert_array_equal, params["transformer"], whole[0]["transformer"])
    np.testing.assert_array_equal(params["text_head"], whole[0]["text_head"])
    assert not np.array_equal(params["speech_embedding"], whole[0]["speech_embedding"])


def test_another_model_is_no_starting_point(whole, tmp_path):
    config = small_config(init_from=str(whole[1]))
    wider = dataclasses.replace(config.model.depth, embed_dim=64)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=wider))
    with pytest.raises(ConfigError, match=r"another model \(its depth differ\)"):
        starting_params(config)


def test_moments_lie_where_their_parameters_do():
    config = small_config()
    state = abstract_state(config, make_mesh(MESH), omni_optimizer(config))
    specs = {parameter_path(path): leaf.sharding.spec for path, leaf in jax.tree.leaves_with_path(state.params)}
    moments = [
        (path, leaf.sharding.spec)
        for path, leaf in ((parameter_path(p), leaf) for p, leaf in jax.tree.leaves_with_path(state.opt_state))
        if "/mu/" in path or "/nu/" in path
    ]
    assert len(moments) == 2 * len(specs)
    assert all(spec == specs[re.split("/[mn]u/", path)[1]] for path, spec in moments)
    assert any("expert" in spec and "fsdp" in spec for _, spec in moments)


def test_embeddings_and_norms_do_not_decay():
    config = small_config()
    optimizer = omni_optimizer(config)
    params = jax.tree.map(lambda axes: np.ones(axes.shape, np.float32), omni.param_axes(config.model))
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    decays = jax.tree.map(lambda update: bool(np.any(update)), updates)
    assert not any(
        jax.tree.leaves([decays["text_embedding"], decays["speech_embedding"], decays["modality_embedding"]])
    )
    assert decays["text_head"]
    assert any(jax.tree.leaves(decays["transformer"]))
    assert not all(jax.tree.leaves(decays["transformer"]))


def test_own_codes_are_hidden_or_replaced_in_whole_rows_at_the_given_rate():
    batch = random_batch(small_config(), 0)
    assert drop_own_codes(batch, jax.random.key(0), 0.0) is batch
    own = batch.timeline.codes
    others = np.where(own >= 0, np.roll(own, 1, axis=0), ABSENT)
    counts = {"kept": 0, "hidden": 0, "replaced": 0}
    for seed in range(50):
        codes = np.asarray(drop_own_codes(batch, jax.random.key(seed), 0.7).timeline.codes)
        for row in range(len(codes)):
            wanted = {"kept": own[row], "hidden": np.full_like(own[row], ABSENT), "replaced": others[row]}
            (found,) = [name for name, value in wanted.items() if np.array_equal(codes[row], value)]
            counts[found] += 1
    shares = {name: count / sum(counts.values()) for name, count in counts.items()}
    assert shares == pytest.approx({"kept": 0.3, "hidden": 0.35, "replaced": 0.35}, abs=0.08)
