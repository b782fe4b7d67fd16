"""The omni model's loss: a sum of terms, each a mean over its own weights on the whole global batch."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Shaped

from omni_jax.config import LossConfig
from omni_jax.nn.cross_entropy import head_nll, heads_nll
from omni_jax.training.ctc import ctc_term, ctc_weights
from omni_jax.types import ABSENT, Batch, Control, Modality, ModelOutput, Projection, TurnState

_BETWEEN_WORDS_WEIGHT = 0.1
# Speech that is not a turn must stop the assistant or leave it alone; a dialogue has only a few frames of it.
_BARGE_IN_STATES = (TurnState.BACKCHANNEL, TurnState.INTERRUPT, TurnState.SIDE_TALK)
_BARGE_IN_WEIGHT = 3.0
ROUTER_TERMS = ("load_balance", "router_z")


def omni_loss(
    cfg: LossConfig,
    output: ModelOutput,
    batch: Batch,
    head: Projection,
    code_heads: Projection | None,
    ctc_subframes: int,
    shares: dict[str, Float[Array, ""]] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum, and every term alone. A term without targets in this batch is 0, with zero gradient.

    Args:
        head: from hidden states to text logits, which are never held whole.
        code_heads: the same of all codebooks.
        shares: of a part of a larger batch (`part_shares`): every term times its share, so that parts sum to the whole.
    """
    terms = text_terms(output, batch, head)
    if output.semantic_hidden is not None:
        terms |= speech_terms(output, batch, code_heads)
    if output.turn_logits is not None:
        terms["turn"], terms["vad"] = turn_terms(output, batch)
    if output.ctc_logits is not None and cfg.ctc > 0:
        terms["ctc"] = ctc_term(output.ctc_logits, batch.media, ctc_subframes)
    if output.phone_logits is not None:
        terms["phone"] = phone_term(output.phone_logits, batch.media.phones)
    if output.word_logits is not None:
        terms["word"] = word_term(output.word_logits, batch.media.words)
    if output.tag_logits is not None:
        terms["tag"] = tag_term(output.tag_logits, batch.media.tags)
    terms["load_balance"] = output.moe.load_balance_loss
    terms["router_z"] = output.moe.router_z_loss
    if shares is not None:
        terms = {name: shares[name] * term for name, term in terms.items()}
    weights = {
        "text": cfg.text,
        "text_z": cfg.text_z,
        "monologue": cfg.monologue,
        "semantic": cfg.semantic,
        "acoustic": cfg.acoustic,
        "turn": cfg.turn,
        "vad": cfg.turn,
        "ctc": cfg.ctc,
        "phone": cfg.phone,
        "word": cfg.word,
        "tag": cfg.tag,
        "load_balance": cfg.load_balance,
        "router_z": cfg.router_z,
    }
    return sum(weights[name] * term for name, term in terms.items()), terms


def part_shares(parts: Batch, ctc_subframes: int) -> dict[str, Float[Array, " n"]]:
    """What share of each term's weights lies in each part of a batch; the routers' terms count every part alike.

    `parts`: every field [n, ...].
    """
    sums = jax.vmap(partial(_sums_of_weights, ctc_subframes=ctc_subframes))(parts)
    count = parts.task.shape[0]
    shares = {name: part / jnp.maximum(jnp.sum(part), jnp.finfo(jnp.float32).tiny) for name, part in sums.items()}
    return shares | dict.fromkeys(ROUTER_TERMS, jnp.full(count, 1 / count))


def _sums_of_weights(batch: Batch, ctc_subframes: int) -> dict[str, Float[Array, ""]]:
    """What each term's mean is divided by: known from the targets, before the model has run."""
    media = batch.media
    weights = _text_weights(batch) | _speech_weights(batch) | _turn_weights(batch)
    weights |= {"phone": _phone_weights(media.phones), "word": _word_weights(media.words)}
    weights |= {"tag": _tag_weights(media.tags), "ctc": ctc_weights(media, ctc_subframes)}
    return {name: jnp.sum(weight) for name, weight in weights.items()}


def weighted_mean(values: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, ""]:
    """Sum of weights x values over the sum of weights; 0 when all weights are 0. Under a mesh both sums are global."""
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0)) / jnp.where(total > 0, total, 1.0)


def text_terms(output: ModelOutput, batch: Batch, head: Projection) -> dict[str, Float[Array, ""]]:
    """Next-token cross-entropy, on the frame grid (the inner monologue) and everywhere else, and its z-loss."""
    timeline = batch.timeline
    nll, log_z = head_nll(output.hidden, head, timeline.text_target)
    values = {"text": nll, "monologue": nll, "text_z": jnp.square(log_z)}
    return {name: weighted_mean(values[name], weights) for name, weights in _text_weights(batch).items()}


def _text_weights(batch: Batch) -> dict[str, Float[Array, "B T"]]:
    weight, on_grid = batch.timeline.text_weight, batch.timeline.modality == Modality.FRAME
    return {
        "text": jnp.where(on_grid, 0.0, weight),
        "monologue": jnp.where(on_grid, weight, 0.0),
        "text_z": weight,
    }


def speech_terms(output: ModelOutput, batch: Batch, heads: Projection) -> dict[str, Float[Array, ""]]:
    """Codebook 0 at every speech frame; codebooks 1 to Q - 1 at the positions of `speech_index`."""
    target, weights = batch.timeline.codes_target, _speech_weights(batch)
    chosen_target = _at_speech_index(target, batch)
    semantic, _ = head_nll(output.semantic_hidden, Projection(heads.matrix[0]), target[..., 0])
    acoustic = heads_nll(output.codes_hidden, heads.matrix[1:], chosen_target)
    return {
        "semantic": weighted_mean(semantic, weights["semantic"]),
        "acoustic": weighted_mean(acoustic, weights["acoustic"]),
    }


def _speech_weights(batch: Batch) -> dict[str, Float[Array, "..."]]:
    chosen = _at_speech_index(batch.timeline.codes_weight, batch)
    return {
        "semantic": batch.timeline.codes_weight[..., 0],
        "acoustic": jnp.where(batch.speech_index[..., None] == ABSENT, 0.0, chosen),
    }


def _at_speech_index(values: Shaped[Array, "B T Q"], batch: Batch) -> Shaped[Array, "B Ns _"]:
    """Codebooks 1 to Q - 1 at the positions of `speech_index`."""
    index = jnp.maximum(batch.speech_index, 0)[..., None]
    return jnp.take_along_axis(values, index, axis=1)[..., 1:]


def turn_terms(output: ModelOutput, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """TurnHead: cross-entropy of the turn state and of the user's voice activity, where they are labelled.

    Frames of `_BARGE_IN_STATES` weigh `_BARGE_IN_WEIGHT` in the turn state.
    """
    state, vad, weights = batch.timeline.turn_state, batch.timeline.user_vad, _turn_weights(batch)
    turn = weighted_mean(_nll(output.turn_logits, state), weights["turn"])
    logits = output.vad_logits.astype(jnp.float32)
    binary = optax.sigmoid_binary_cross_entropy(logits, jnp.maximum(vad, 0).astype(jnp.float32))
    return turn, weighted_mean(binary, weights["vad"])


def _turn_weights(batch: Batch) -> dict[str, Float[Array, "B T"]]:
    state, vad = batch.timeline.turn_state, batch.timeline.user_vad
    barge_in = jnp.where(jnp.isin(state, jnp.array(_BARGE_IN_STATES)), _BARGE_IN_WEIGHT, 1.0)
    return {"turn": jnp.where(state == ABSENT, 0.0, barge_in), "vad": (vad != ABSENT).astype(jnp.float32)}


def phone_term(logits: Float[Array, "G A4 K"], phones: Int[Array, "G A4"]) -> Float[Array, ""]:
    """Cross-entropy of the phone that sounds, where it is known."""
    return weighted_mean(_nll(logits, phones), _phone_weights(phones))


def _phone_weights(phones: Int[Array, "G A4"]) -> Float[Array, "G A4"]:
    return (phones != ABSENT).astype(jnp.float32)


def word_term(logits: Float[Array, "G A V"], words: Int[Array, "G A"]) -> Float[Array, ""]:
    """Cross-entropy of the piece that has just been heard, where it is known; most slots are between two words."""
    return weighted_mean(_nll(logits, words), _word_weights(words))


def _word_weights(words: Int[Array, "G A"]) -> Float[Array, "G A"]:
    return jnp.where(words == ABSENT, 0.0, jnp.where(words == Control.WAIT, _BETWEEN_WORDS_WEIGHT, 1.0))


def tag_term(logits: Float[Array, "G Z V"], tags: Int[Array, "G Z W"]) -> Float[Array, ""]:
    """Cross-entropy of every piece of a picture's name; 0 pads."""
    return weighted_mean(
        _nll(jnp.broadcast_to(logits[:, :, None], (*tags.shape, logits.shape[-1])), tags), _tag_weights(tags)
    )


def _tag_weights(tags: Int[Array, "G Z W"]) -> Float[Array, "G Z W"]:
    return (tags != 0).astype(jnp.float32)


def _nll(logits: Float[Array, "... V"], target: Int[Array, "..."]) -> Float[Array, "..."]:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), jnp.maximum(target, 0))
