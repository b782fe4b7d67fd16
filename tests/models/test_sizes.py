"""Every size can be built and trained by shapes alone, and is as large as the documentation says."""

import os
from functools import partial

import jax
import pytest

from configs import align, duplex, perceive, pretrain, sizes
from omni_jax.config import MeshConfig, resolve
from omni_jax.parallel.mesh import make_mesh
from omni_jax.planning.abstract_batch import abstract_batch
from omni_jax.training.model_flops import count_parameters
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.step import train_step

STAGES = {"pretrain": pretrain, "perceive": perceive, "align": align, "duplex": duplex}
# Duplex has all parts; align adds CTC, which no size changes; pretrain reads text, at tiny and small also names.
CASES = [("duplex", size) for size in sizes.MODELS]
CASES += [("pretrain", size) for size in ("tiny", "small", *sizes.TEXT_MODELS)] + [("align", "tiny")]
REST = [(stage, size) for stage in STAGES for size in sizes.MODELS if (stage, size) not in CASES]
rest = pytest.mark.skipif(os.environ.get("OMNI_JAX_SLOW") != "1", reason="traces for minutes: set OMNI_JAX_SLOW=1")
# Billions of parameters, all and active, encoders (1.3 B in the large sizes), embeddings and heads included.
BILLIONS = {
    "tiny": (0.00575, 0.00509),
    "small": (0.248, 0.1706),
    "1b": (1.613, 1.613),
    "8b_a1b": (9.55, 3.47),
    "30b_a3b": (32.22, 5.04),
    "400b_a17b": (400.8, 20.05),
    "mixtral_8x7b": (46.70, 12.88),
    "qwen3_30b_a3b": (30.53, 3.353),
}


@pytest.mark.parametrize("size", BILLIONS)
def test_a_size_is_as_large_as_it_says(size):
    total, active = count_parameters(resolve(pretrain.get_config(size)))
    assert (total / 1e9, active / 1e9) == pytest.approx(BILLIONS[size], rel=0.02)


@pytest.mark.parametrize(("stage", "size"), [*CASES, *(pytest.param(*case, marks=rest) for case in REST)])
def test_a_step_traces(stage, size):
    config = resolve(STAGES[stage].get_config(size))
    optimizer = omni_optimizer(config)
    state = abstract_state(config, make_mesh(MeshConfig(), jax.devices()[:1]), optimizer)
    new, metrics = jax.eval_shape(partial(train_step, config, optimizer), state, abstract_batch(config))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics["loss"].shape == ()
