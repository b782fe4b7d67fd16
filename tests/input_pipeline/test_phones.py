"""Phone tracks: which phone sounds in every 20 ms."""

from types import SimpleNamespace

import numpy as np

from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.phones import phone_inventory, phone_track
from omni_jax.types import ABSENT

PHONES = (Span("pau", 0, 40), Span("d", 40, 100), Span("ao", 100, 200))


def test_inventory_counts_and_leaves_out_the_rarest():
    clips = [SimpleNamespace(phones=PHONES), SimpleNamespace(phones=PHONES[:2])]
    assert phone_inventory(clips, 3) == {"pau": 0, "d": 1, "ao": 2}
    assert phone_inventory(clips, 2) == {"pau": 0, "d": 1}


def test_track_follows_the_times():
    track = phone_track(PHONES, 14, 40.0, {"pau": 0, "d": 1, "ao": 2})
    np.testing.assert_array_equal(track, [0] * 4 + [1] * 3 + [2] * 5 + [0] * 2)


def test_unknown_phones_and_missing_times_are_absent():
    assert set(phone_track(PHONES, 12, 40.0, {"pau": 0, "d": 1})[7:12]) == {ABSENT}
    assert set(phone_track((), 4, 0.0, {"pau": 0})) == {ABSENT}
