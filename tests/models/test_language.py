"""The text path alone, with the trunk's other shapes: learned positions, parallel blocks, partial rotary, biases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.errors import ConfigError
from omni_jax.model_config import ModelConfig, TransformerConfig, TrunkVariant
from omni_jax.models import binding, omni
from omni_jax.models.language import LanguageModel, greedy, logits
from omni_jax.nn.rope import apply_rotary, rotary, stretch_frequencies

from .tiny import MODEL, dialogue, model_params

PARITY = 2e-5
SMALL = {"num_layers": 2, "embed_dim": 12, "num_heads": 2, "num_kv_heads": 2, "head_dim": 6, "mlp_dim": 16}
LEARNED = TransformerConfig(
    **SMALL,
    num_experts=0,
    qk_norm=False,
    variant=TrunkVariant(
        learned_positions=16,
        norm="layer",
        attention_biases=("query", "key", "value", "out"),
        mlp="gelu_tanh",
        text_head_bias=True,
    ),
)
PARALLEL = TransformerConfig(
    **SMALL,
    num_experts=0,
    rope_sections=(2, 0, 0),
    scan_layers=True,
    variant=TrunkVariant(rotary_dim=4, norm="layer", parallel_block=True, text_head_bias=True),
)


@pytest.mark.parametrize("trunk", [LEARNED, PARALLEL], ids=["learned", "parallel"])
def test_cached_steps_choose_what_whole_rows_choose(trunk):
    cfg = ModelConfig(vocab_size=17, transformer=trunk)
    params = jax.jit(binding.init_params, static_argnums=(0, 1))(LanguageModel, cfg, jax.random.key(0))
    params["text_head_bias"] = jnp.linspace(-0.1, 0.1, 17)
    prompt = jnp.asarray([[3, 1, 4], [1, 5, 9]], jnp.int32)
    said = np.asarray(greedy(cfg, params, prompt, 6))
    row = np.concatenate([prompt, said], axis=1)
    whole = np.argmax(logits(cfg, params, jnp.asarray(row[:, :-1])), axis=-1)
    np.testing.assert_array_equal(said, whole[:, 2:])
    assert len(np.unique(said)) > 1


def test_the_language_model_is_the_omni_models_text_path():
    """Text alone on the timeline, without its modality embedding."""
    params, batch = model_params(), dialogue(frames=0, prefix=5, patches=0)
    params = params | {"modality_embedding": jnp.zeros_like(params["modality_embedding"])}
    hidden = omni.apply(MODEL, params, batch._replace(speech_index=batch.speech_index[:, :0])).hidden
    ours = {name: params[name] for name in ("text_embedding", "transformer", "text_head")}
    np.testing.assert_allclose(
        logits(MODEL, ours, batch.timeline.text), omni.text_logits(MODEL, params, hidden), atol=PARITY
    )


def test_the_rest_of_a_partly_rotary_head_passes_through():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
    angles = rotary(jnp.arange(3)[None, :, None].repeat(3, 2), (2, 0, 0), 100.0)
    turned = apply_rotary(x, angles)
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    np.testing.assert_allclose(turned[..., :4], apply_rotary(x[..., :4], angles))


def test_stretched_frequencies_keep_the_fast_and_slow_the_slow():
    fast, slow = 1.0, 1e-5
    got = stretch_frequencies(np.asarray([fast, slow], np.float32), (8.0, 1.0, 4.0, 8192.0))
    np.testing.assert_allclose(got, [fast, slow / 8], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"norm": "batch"}, "want rms or layer"),
        ({"mlp": "relu"}, "want swiglu or gelu_tanh"),
        ({"attention_biases": ("qkv",)}, "attention_biases"),
        ({"rope_stretch": (8.0,)}, "rope_stretch"),
    ],
)
def test_shapes_that_do_not_exist_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        TrunkVariant(**values)


def test_rotary_pairs_must_fill_the_rotary_part():
    with pytest.raises(ConfigError, match="rotary_dim/2=10"):
        TransformerConfig(variant=TrunkVariant(rotary_dim=20))
