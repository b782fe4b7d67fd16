"""The step's parts: gradients summed over parts of a batch, routers balanced, optimizers with sharded state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh
from omni_jax.training.losses import part_shares
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.step import _accumulated_gradients, _gradients, balance_routers, split_batch
from omni_jax.types import ABSENT, Modality
from tests.training.batches import random_batch, small_config

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def changed(config, group, **values):
    return dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **values)})


def test_parts_of_a_batch_sum_to_the_whole_in_every_term():
    """Some rows have no speech, others no text, and all of them weights of their own."""
    config = changed(small_config(), "loss", load_balance=0.0, router_z=0.0, ctc=0.3)
    config = changed(config, "training", microbatches=4)
    batch = random_batch(config, 0)
    row = np.arange(8, dtype=np.float32)[:, None]
    text_weight = batch.timeline.text_weight * np.where(batch.timeline.modality == Modality.FRAME, row % 3, 7 - row)
    codes_weight = batch.timeline.codes_weight * (row[..., None] // 2)
    turn_state = np.where(row == 5, ABSENT, batch.timeline.turn_state)
    timeline = batch.timeline._replace(text_weight=text_weight, codes_weight=codes_weight, turn_state=turn_state)
    batch = jax.tree.map(jnp.asarray, batch._replace(timeline=timeline))
    params = jax.jit(lambda key: omni.init_params(config.model, key))(jax.random.key(0))
    whole, parts = (
        jax.jit(lambda params, batch, f=f: f(config, params, batch))(params, batch)
        for f in (_gradients, _accumulated_gradients)
    )
    assert all(float(whole[0][name]) > 0 for name in ("text", "monologue", "semantic", "acoustic", "turn", "ctc"))
    for name in set(whole[0]) - {"load_balance", "router_z", "router_entropy", "max_expert_share"}:
        np.testing.assert_allclose(parts[0][name], whole[0][name], **CLOSE, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), parts[2], whole[2])


def test_parts_without_audio_pictures_or_speech_have_shares():
    """Sizes above `small` pack none in `pretrain`."""
    config = small_config()
    batch = random_batch(config, 0)
    empty = {name: getattr(batch.media, name)[:, :0] for name in ("mel_segment_ids", "phones", "words")}
    batch = batch._replace(speech_index=batch.speech_index[:, :0], media=batch.media._replace(**empty))
    parts = split_batch(jax.tree.map(jnp.asarray, batch), 4, config.data.rows_per_pool)
    shares = part_shares(parts, config.model.audio.ctc_subframes)
    np.testing.assert_allclose(shares["text"].sum(), 1.0, rtol=1e-6)
    assert all(float(shares[name].sum()) == 0.0 for name in ("ctc", "phone", "word", "acoustic"))


def test_a_pool_stays_with_its_rows():
    batch = random_batch(small_config(), 0)
    mark = np.arange(8, dtype=np.int32)
    batch = batch._replace(speech_index=mark[:, None], media=batch.media._replace(tags=mark[::2, None, None]))
    parts = split_batch(batch, 2, rows_per_pool=2)
    np.testing.assert_array_equal(parts.speech_index[..., 0], [[0, 1, 4, 5], [2, 3, 6, 7]])
    np.testing.assert_array_equal(parts.media.tags[..., 0, 0], [[0, 4], [2, 6]])


def test_balancing_raises_what_is_idle_and_touches_nothing_else():
    params = {"moe": {"router_bias": jnp.zeros((1, 4)), "router": jnp.ones((2, 4))}}
    moved = balance_routers(params, jnp.asarray([[0.7, 0.1, 0.2, 0.0]]), 0.01)
    np.testing.assert_allclose(moved["moe"]["router_bias"], [[-0.01, 0.01, 0.01, 0.01]], rtol=1e-6)
    np.testing.assert_array_equal(moved["moe"]["router"], params["moe"]["router"])
    assert balance_routers(params, jnp.ones((1, 4)), 0.0) is params


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_every_optimizer_has_sharded_state_and_leaves_the_bias_alone(name):
    config = changed(small_config(), "optimizer", name=name)
    trunk = dataclasses.replace(config.model.transformer, router_bias_rate=0.01, embed_dim=128)
    config = changed(config, "model", transformer=trunk)
    optimizer = omni_optimizer(config)
    state = abstract_state(config, make_mesh(MeshConfig(fsdp=4, expert=2)), optimizer)
    large = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.size >= 4 * 128 * 32]
    assert large
    assert all(not leaf.sharding.is_fully_replicated for leaf in large)
    updates, _ = jax.eval_shape(optimizer.update, state.params, state.opt_state, state.params)
    assert jax.tree.map(lambda leaf: leaf.shape, updates) == jax.tree.map(lambda leaf: leaf.shape, state.params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)]
    assert not any("router_bias" in path for path in paths)
