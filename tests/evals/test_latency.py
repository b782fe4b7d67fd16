import numpy as np
import pytest

from omni_jax.evals.latency import first_audio, first_audio_ms, real_time

from .waves import call, reply


def test_latency_adds_computation_to_the_frame_clock():
    """Heard at 1,440 ms on the clock without computation; every frame takes 30 ms; the user ends at 1,000 ms."""
    latency = first_audio_ms(call(((0, 1000),)), reply(((1440, 3000),)), [0.03])
    assert latency == pytest.approx(470, abs=11)


def test_a_slow_machine_falls_behind():
    """At 120 ms a frame the 18th frame is done at 18 x 120 ms + 80 ms, not at 18 x 80 ms."""
    latency = first_audio_ms(call(((0, 1000),)), reply(((1440, 3000),)), [0.12])
    assert latency == pytest.approx(18 * 120 + 80 - 1000, abs=11)


def test_early_starts_are_negative_and_silence_is_left_out():
    calls = [call(((0, 2000),)) for _ in range(4)]
    replies = [reply(((1200, 3000),)), reply(((2400, 3000),)), reply(((2800, 3000),)), reply()]
    metrics, records = first_audio(calls, replies, [[0.0]])
    assert metrics["early_start_rate"] == pytest.approx(1 / 3)
    assert metrics["first_audio_ms_median"] == pytest.approx(400, abs=11)
    assert metrics["first_audio_ms_median_num_examples"] == len(records) == 3
    assert min(record["first_audio_ms"] for record in records) == pytest.approx(-800, abs=11)


def test_real_time_factor_is_computation_over_duration():
    metrics = real_time([[0.04] * 10, [0.02] * 10])
    assert metrics["real_time_factor"] == pytest.approx(0.03 / 0.08)
    assert metrics["real_time_factor_floor"] == 1.0
    assert metrics["tick_ms_p99"] == pytest.approx(40)
    assert np.isfinite(metrics["real_time_factor_ci"]).all()


def test_every_timed_session_counts():
    """Of two timed sessions one takes 60 ms a frame: every second call is late by it."""
    calls, replies = [call(((0, 1000),))] * 4, [reply(((1440, 3000),))] * 4
    _, records = first_audio(calls, replies, [[0.0], [0.06]])
    assert [record["first_audio_ms"] for record in records] == pytest.approx([440, 500, 440, 500], abs=11)
