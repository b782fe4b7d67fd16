"""Every size can be built and run forward, by shapes alone, and is as large as the documentation says."""

import jax
import numpy as np
import pytest

from configs import duplex, sizes
from omni_jax.input_pipeline.packing import Budget, Packer, assemble
from omni_jax.models import omni
from omni_jax.train import resolve

MILLIONS = {"tiny": 6, "small": 248}


@pytest.mark.parametrize("size", sizes.MODELS)
def test_size_traces(size):
    config = resolve(duplex.get_config(size))
    params = jax.eval_shape(lambda key: omni.init_params(config.model, key), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(MILLIONS[size], rel=0.02)
    batch = assemble(Packer(Budget.from_config(config)), np.random.default_rng(0))
    output = jax.eval_shape(lambda params, batch: omni.apply(config.model, params, batch), params, batch)
    assert output.hidden.shape == (*batch.timeline.text.shape, config.model.transformer.embed_dim)
    assert output.codes_logits.shape[2:] == (config.model.num_codebooks, config.model.codebook_size)
