"""Every loss term against a plain loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.config import LossConfig
from omni_jax.training.ctc import ctc_term
from omni_jax.training.losses import (
    omni_loss,
    phone_term,
    speech_terms,
    tag_term,
    text_terms,
    turn_terms,
    weighted_mean,
    word_term,
)
from omni_jax.types import ABSENT, Control, Modality, ModelOutput, MoEStats, Projection, TurnState
from tests.training.batches import random_batch, small_config

CONFIG = small_config()
MODEL = CONFIG.model
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def batch():
    return random_batch(CONFIG, 0)


@pytest.fixture(scope="module")
def output(batch):
    rng = np.random.default_rng(1)
    rows, length = batch.timeline.text.shape
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    slots = batch.media.mel_segment_ids.shape[1]
    return ModelOutput(
        hidden=draw(rows, length, 5),
        semantic_hidden=draw(rows, length, 3),
        codes_hidden=draw(rows, batch.speech_index.shape[1], MODEL.num_codebooks - 1, 3),
        vad_logits=draw(rows, length),
        turn_logits=draw(rows, length, 6),
        ctc_logits=draw(rows, slots * MODEL.audio.ctc_subframes, MODEL.audio.ctc_vocab),
        phone_logits=draw(rows, 4 * slots, MODEL.audio.num_phones),
        word_logits=draw(rows, slots, MODEL.vocab_size),
        tag_logits=draw(rows, batch.media.tags.shape[1], MODEL.vocab_size),
        moe=MoEStats(*(jnp.ones(shape) for shape in ((), (), (2, 4), (), ()))),
    )


@pytest.fixture(scope="module")
def head():
    return np.random.default_rng(2).normal(size=(5, MODEL.vocab_size)).astype(np.float32)


@pytest.fixture(scope="module")
def code_heads():
    shape = (MODEL.num_codebooks, 3, MODEL.codebook_size)
    return Projection(np.random.default_rng(3).normal(size=shape).astype(np.float32))


def test_weighted_mean_without_weight_is_zero_with_zero_gradient():
    value, gradient = jax.value_and_grad(lambda x: weighted_mean(x / 0.0, jnp.zeros(3)))(jnp.ones(3))
    assert value == 0.0
    assert not np.any(np.nan_to_num(gradient, nan=0.0))
    assert weighted_mean(jnp.asarray([1.0, 4.0]), jnp.asarray([3.0, 1.0])) == pytest.approx(7 / 4)


def test_monologue_is_the_text_on_the_frame_grid(output, batch, head):
    timeline = batch.timeline
    terms = text_terms(output, batch, Projection(head))
    nll = -np.take_along_axis(log_softmax(output.hidden @ head), timeline.text_target[..., None], -1)[..., 0]
    on_grid = timeline.modality == Modality.FRAME
    weight = timeline.text_weight
    np.testing.assert_allclose(terms["monologue"], (nll * weight)[on_grid].sum() / weight[on_grid].sum(), **CLOSE)
    np.testing.assert_allclose(terms["text"], (nll * weight)[~on_grid].sum() / weight[~on_grid].sum(), **CLOSE)


def test_speech_terms_are_codebook_0_everywhere_and_the_others_where_chosen(output, batch, code_heads):
    timeline, total, count = batch.timeline, 0.0, 0.0
    logits = np.einsum("bnqw,qwk->bnqk", output.codes_hidden, code_heads.matrix[1:])
    for row, n in itertools.product(range(len(batch.speech_index)), range(batch.speech_index.shape[1])):
        position = batch.speech_index[row, n]
        if position == ABSENT:
            continue
        for q in range(1, MODEL.num_codebooks):
            weight = timeline.codes_weight[row, position, q]
            total -= weight * log_softmax(logits[row, n, q - 1])[timeline.codes_target[row, position, q]]
            count += weight
    terms = speech_terms(output, batch, code_heads)
    np.testing.assert_allclose(terms["acoustic"], total / count, **CLOSE)
    semantic = np.take_along_axis(
        log_softmax(output.semantic_hidden @ code_heads.matrix[0]), np.maximum(timeline.codes_target[..., :1], 0), -1
    )
    weight = timeline.codes_weight[..., 0]
    np.testing.assert_allclose(terms["semantic"], -(semantic[..., 0] * weight).sum() / weight.sum(), **CLOSE)


def test_turn_terms_skip_what_is_not_labelled_and_stress_who_speaks_while_the_model_does(output, batch):
    state, vad = batch.timeline.turn_state, batch.timeline.user_vad
    turn, activity = turn_terms(output, batch)
    picked = np.take_along_axis(log_softmax(output.turn_logits), np.maximum(state, 0)[..., None], -1)[..., 0]
    barge_in = np.isin(state, (TurnState.BACKCHANNEL, TurnState.INTERRUPT, TurnState.SIDE_TALK))
    weights = np.where(state == ABSENT, 0.0, np.where(barge_in, 3.0, 1.0))
    assert len(set(state[state != ABSENT])) == len(TurnState)
    np.testing.assert_allclose(turn, -(weights * picked).sum() / weights.sum(), **CLOSE)
    probability = 1 / (1 + np.exp(-output.vad_logits))
    binary = -np.where(vad == 1, np.log(probability), np.log1p(-probability))
    np.testing.assert_allclose(activity, binary[vad != ABSENT].mean(), **CLOSE)


def alignments_nll(logits, labels):
    """-log of the summed probability of all alignments, by enumeration."""
    log_probs, total = log_softmax(logits), -np.inf
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        collapsed = [label for label, _ in itertools.groupby(path) if label != 0]
        if collapsed == labels:
            total = np.logaddexp(total, sum(log_probs[t, label] for t, label in enumerate(path)))
    return -total


def test_ctc_is_the_sum_over_alignments_of_each_segment_alone(batch):
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(1, 6 * 2, 3)).astype(np.float32)
    labels = np.asarray([[[1, 2], [2, 2], [1, 0], [2, 0]]])
    media = batch.media._replace(
        mel_segment_ids=np.asarray([[1, 1, 2, 2, 3, 0]]),  # two frames a slot; segment 4 is not there
        ctc_labels=labels,
        ctc_weight=np.asarray([[1.0, 1.0, 0.0, 1.0]], np.float32),
    )
    expected = alignments_nll(logits[0, :4], [1, 2]) + alignments_nll(logits[0, 4:8], [2, 2])
    np.testing.assert_allclose(ctc_term(jnp.asarray(logits), media, 2), expected / 4, rtol=1e-4)
    gradient = jax.grad(lambda logits: ctc_term(logits, media, 2))(jnp.asarray(logits))
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[0, :8])
    assert not np.any(gradient[0, 8:]), "a segment without weight teaches nothing"


def test_a_transcript_that_does_not_fit_is_left_out(batch):
    media = batch.media._replace(
        mel_segment_ids=np.asarray([[1, 0]]),
        ctc_labels=np.asarray([[[1, 1]]]),  # needs a blank between: three frames
        ctc_weight=np.ones((1, 1), np.float32),
    )
    value, gradient = jax.value_and_grad(lambda x: ctc_term(x, media, 2))(jnp.ones((1, 4, 3)))
    assert value == 0.0
    assert not np.any(gradient)


def test_the_loss_is_the_weighted_sum_of_its_terms(output, batch, head, code_heads):
    cfg = LossConfig(
        text=2.0, monologue=3.0, semantic=5.0, acoustic=7.0, turn=11.0, ctc=13.0, phone=17.0, word=23.0, tag=19.0
    )
    loss, terms = omni_loss(cfg, output, batch, Projection(head), code_heads, MODEL.audio.ctc_subframes)
    weights = {
        "text": 2,
        "text_z": 0,
        "monologue": 3,
        "semantic": 5,
        "acoustic": 7,
        "turn": 11,
        "vad": 11,
        "ctc": 13,
        "phone": 17,
        "word": 23,
        "tag": 19,
    }
    weights |= {"load_balance": cfg.load_balance, "router_z": cfg.router_z}
    assert terms.keys() == weights.keys()
    np.testing.assert_allclose(loss, sum(weights[name] * term for name, term in terms.items()), rtol=1e-5)


def test_tags_and_phones_count_only_where_they_are_known():
    logits = jnp.zeros((1, 2, 5)).at[0, 0, 3].set(2.0)
    tags = jnp.asarray([[[3, 0], [0, 0]]])
    assert float(tag_term(logits, tags)) == pytest.approx(float(np.log(np.exp(2.0) + 4.0) - 2.0), rel=1e-5)
    phones = jnp.asarray([[-1, 2]])
    assert float(phone_term(jnp.zeros((1, 2, 5)), phones)) == pytest.approx(np.log(5.0), rel=1e-5)
    assert float(phone_term(jnp.zeros((1, 2, 5)), jnp.full((1, 2), -1))) == 0.0


def test_slots_between_words_count_a_tenth_of_a_word():
    vocab = 30
    logits = jnp.zeros((1, 3, vocab)).at[0, 0, 21].set(2.0)
    words = jnp.asarray([[21, int(Control.WAIT), ABSENT]])
    said, between = np.log(np.exp(2.0) + vocab - 1) - 2.0, np.log(vocab)
    assert float(word_term(logits, words)) == pytest.approx((said + 0.1 * between) / 1.1, rel=1e-5)
    assert float(word_term(logits, jnp.full((1, 3), ABSENT))) == 0.0
