"""What encoders name is read as text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.models import omni
from omni_jax.models.namer import Namer, written
from omni_jax.types import Control

from .tiny import MODEL, dialogue, model_params

FIRST = max(Control) + 1


@pytest.fixture
def embedding():
    return jax.random.normal(jax.random.key(0), (MODEL.vocab_size, 32))


def sure_namer() -> Namer:
    namer = Namer()
    namer.log_scale = nnx.Param(jnp.full((1,), 6.0))
    namer.gate = nnx.Param(jnp.zeros((1,)))
    return namer


def test_a_sure_encoder_says_what_is_written(embedding):
    pieces, namer = np.array([[FIRST, Control.WAIT, FIRST + 5, FIRST + 2]]), sure_namer()
    heard = 7.0 * embedding[pieces]
    said = namer.shape(heard) + namer.named(namer.logits(heard, embedding), embedding)
    np.testing.assert_allclose(said, written(pieces, embedding), atol=1e-4)
    assert not np.any(written(pieces, embedding)[0, 1])


def test_an_unsure_encoder_says_something_in_between(embedding):
    namer = sure_namer()
    between = embedding[FIRST] / jnp.linalg.norm(embedding[FIRST]) + embedding[30] / jnp.linalg.norm(embedding[30])
    said = namer.named(namer.logits(between[None, None], embedding), embedding)[0, 0]
    wanted = 0.5 * (embedding[FIRST] + embedding[30])
    assert jnp.linalg.norm(said - wanted) < 0.3 * jnp.linalg.norm(wanted)


def test_written_pools_need_no_encoder():
    batch = dialogue(frames=6)
    words = np.full_like(batch.media.words, Control.WAIT)
    tags = batch.media.tags.copy()
    words[:, 3], tags[:, 0, :2] = FIRST, (FIRST + 1, FIRST + 2)
    media = batch.media._replace(
        mel=batch.media.mel[..., :0], patches=batch.media.patches[..., :0], words=words, tags=tags
    )
    apply = jax.jit(omni.apply, static_argnums=0)

    def hidden(media):
        output = apply(MODEL, model_params(), batch._replace(media=media))
        assert output.word_logits is output.tag_logits is output.ctc_logits is output.phone_logits is None
        return output.hidden

    before = hidden(media)
    heard = hidden(media._replace(words=np.where(words == FIRST, FIRST + 3, words)))
    frame = 2 + 4 + 3  # behind two tokens of text and four pooled patches
    assert float(jnp.max(jnp.abs(heard - before)[:, :frame])) == 0.0
    assert float(jnp.max(jnp.abs(heard - before)[:, frame])) > 1e-3
    tags[:, 0, :2] = FIRST + 4
    assert float(jnp.max(jnp.abs(hidden(media._replace(tags=tags)) - before)[:, 2])) > 1e-3
