import numpy as np
import pytest

from omni_jax.evals.duplex import Overlap, backchannels, interruptions, overlap_start_ms, pauses, with_second_clip
from omni_jax.evals.levels import audible, first_audible_ms, last_audible_ms, stop_ms

from .waves import call, reply, tone

RATE_HZ = 24_000


def test_levels_find_sound_and_silence_to_the_window():
    windows = audible(tone(((500, 1200), (1500, 2000)), 3000), RATE_HZ)
    assert first_audible_ms(windows) == 500 and last_audible_ms(windows) == 2000
    assert first_audible_ms(windows, after_ms=1300) == 1500
    assert first_audible_ms(windows, after_ms=2000) is None
    assert stop_ms(windows, 600) == 2000  # the gap of 300 ms is too short for a stop
    assert stop_ms(windows, 2200) == 2200


def test_forty_five_decibels_is_the_border():
    """A sine of amplitude a has a level of 20 log10(a) - 3 dB."""
    loud, quiet = (10 ** ((level + 3.01) / 20) for level in (-44.5, -45.5))
    assert audible(tone(((0, 1000),), 1000, level=loud), RATE_HZ).all()
    assert not audible(tone(((0, 1000),), 1000, level=quiet), RATE_HZ).any()


def test_a_stop_needs_400_ms_inside_the_recording():
    assert stop_ms(audible(tone(((0, 700),), 1000), RATE_HZ), 0) is None
    assert stop_ms(audible(tone(((0, 600),), 1000), RATE_HZ), 0) == 600


def test_second_clip_goes_where_enough_speech_is_due():
    rng = np.random.default_rng(0)
    at = overlap_start_ms(reply(((2000, 6000),)), rng)
    assert 2400 <= at <= 2880 and at % 80 == 0
    assert overlap_start_ms(reply(((2000, 3500),)), rng) is None
    assert overlap_start_ms(reply(), rng) is None


def test_second_clip_leaves_the_prefix_as_it_is():
    base = call(total_ms=2000, second_wav=tone(((0, 500),), 500, 16_000, level=0.3))
    joined = with_second_clip(base, 1600.0).user_wav
    assert len(joined) == 2100 * 16 and np.array_equal(joined[: 1600 * 16], base.user_wav[: 1600 * 16])
    assert np.abs(joined[1600 * 16 :]).max() == pytest.approx(0.3, abs=0.01)


def overlap(heard_spans, alone_spans=((2000, 7000),), identified_ms=300.0, **fields):
    clip = tone(((0, 500),), 500, 16_000)
    base = call(second_wav=clip, identified_ms=identified_ms, **fields)
    return Overlap(base, 2500.0, reply(alone_spans, total_ms=9000), reply(heard_spans, total_ms=9000))


def test_interruption_counts_from_the_identified_word_and_knows_its_floor():
    """Identified at 2,800 ms: a stop up to 3,800 ms is in time."""
    given = [
        overlap(((2000, 3200),)),
        overlap(((2000, 3780),)),
        overlap(((2000, 3900),)),
        overlap(((2000, 3200),), alone_spans=((2000, 3500), (4000, 7000))),
    ]
    metrics, records = interruptions(given)
    assert metrics["interruption_stop_share_1000ms"] == 0.75
    assert metrics["interruption_stop_share_1000ms_floor"] == 0.25
    assert [record["stop_ms"] for record in records] == [3200, 3780, 3900, 3200]


def test_continuing_is_no_stop_until_a_second_after_the_sound():
    """The sound ends at 3,000 ms: a stop up to 4,000 ms counts against the model, its natural end does not."""
    given = [
        overlap(((2000, 7000),)),
        overlap(((2000, 3500),)),
        overlap(((2000, 4300),)),
        overlap(((2000, 3800),), alone_spans=((2000, 3800),)),
    ]
    metrics, records = backchannels(given, interruption_stop_share=0.6)
    assert [record["continued"] for record in records] == [True, False, True, True]
    assert metrics["backchannel_continue_share"] == 0.75
    assert metrics["backchannel_continue_share_floor"] == pytest.approx(0.4)
    assert metrics["backchannel_continue_share_ceiling"] == 1.0


def test_pause_takeover_is_sound_inside_a_pause():
    spans = ((1000.0, 1400.0), (2000.0, 3000.0))
    calls = [call(pauses_ms=spans), call(pauses_ms=spans)]
    metrics, records = pauses(calls, [reply(((1200, 1300),)), reply(((3100, 4000),))])
    assert metrics["pause_takeover_rate"] == 0.25 and metrics["pause_takeover_rate_num_examples"] == 4
    assert metrics["pause_takeover_rate_floor"] == 0.5  # the pause of 400 ms is too short for the detector
    assert [record["taken"] for record in records] == [True, False, False, False]
