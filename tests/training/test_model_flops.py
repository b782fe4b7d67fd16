"""The share of a step's work that goes into padding."""

import jax
import numpy as np
import pytest

from omni_jax.training.fill import fill
from omni_jax.training.model_flops import padded_flops
from tests.training.batches import random_batch, small_config


def test_what_a_batch_is_filled_with_says_how_much_of_the_work_is_padding():
    config = small_config()
    measured = {name: float(share) for name, share in fill(random_batch(config, 0)).items()}
    expected = {"positions": 20 / 24, "audio_slots": 12 / 16, "patches": 16 / 32, "speech_positions": 6 / 8}
    assert measured == pytest.approx({f"fill/{name}": share for name, share in expected.items()})
    full = dict.fromkeys(measured, 1.0)
    assert padded_flops(config, full) == 0.0
    parts = [padded_flops(config, full | {name: share}) for name, share in measured.items()]
    assert all(0.0 < part < 0.5 for part in parts)
    assert max(parts) < padded_flops(config, measured) < sum(parts) + 1e-9  # attention alone counts twice
    assert padded_flops(config, dict.fromkeys(measured, 0.0)) == pytest.approx(1.0)


def test_a_budget_of_nothing_is_not_padding():
    batch = random_batch(small_config(), 0)
    media = batch.media._replace(patch_segment_ids=np.zeros((8, 0), np.int32))
    measured = jax.device_get(fill(batch._replace(media=media, speech_index=np.zeros((8, 0), np.int32))))
    assert sorted(measured) == ["fill/audio_slots", "fill/positions"]
    assert padded_flops(small_config(), dict.fromkeys(measured, 1.0)) == 0.0
