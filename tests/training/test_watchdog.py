"""When a run counts as stalled, on a clock of the test's own; processes that freeze are in tests/faults."""

import pytest

from omni_jax.training import watchdog

POLL_S, TIMEOUT_S = 0.5, 20.0


class Stalled(Exception):
    pass


class Polls:
    """Stands in for the event that ends the watch: each wait takes the next of `gaps_s`, and may see a beat."""

    def __init__(self, gaps_s, beat, every):
        self.now, self.polls = 0.0, 0
        self._gaps_s, self._beat, self._every = list(gaps_s), beat, every

    def wait(self, _):
        if self.polls == len(self._gaps_s):
            return True
        self.now += self._gaps_s[self.polls]
        self.polls += 1
        if self._every and self.polls % self._every == 0:
            self._beat("step")
        return False


def polls_until_stalled(monkeypatch, tmp_path, gaps_s, beat_every=0):
    """None where the watch ends in peace."""
    dog = watchdog.Watchdog(tmp_path, TIMEOUT_S)
    dog.beat("step")
    dog._ended = polls = Polls(gaps_s, dog.beat, beat_every)

    def abort(reason):
        raise Stalled(reason)

    monkeypatch.setattr(watchdog.time, "monotonic", lambda: polls.now)
    monkeypatch.setattr(dog, "abort", abort)
    try:
        dog._watch()
    except Stalled:
        return polls.polls
    return None


def test_a_run_without_a_step_is_stalled_after_the_timeout(monkeypatch, tmp_path):
    assert polls_until_stalled(monkeypatch, tmp_path, [POLL_S] * 100) == TIMEOUT_S / POLL_S + 1


def test_a_run_with_a_step_now_and_then_is_not(monkeypatch, tmp_path):
    assert polls_until_stalled(monkeypatch, tmp_path, [POLL_S] * 400, beat_every=39) is None


@pytest.mark.parametrize("stopped_s", [TIMEOUT_S - 1, 10 * TIMEOUT_S])
def test_the_time_in_which_the_process_was_stopped_does_not_count(monkeypatch, tmp_path, stopped_s):
    gaps_s = [POLL_S] * 20 + [stopped_s] + [POLL_S] * 20
    assert polls_until_stalled(monkeypatch, tmp_path, gaps_s, beat_every=39) is None


def test_a_stalled_run_that_is_stopped_again_and_again_is_stalled(monkeypatch, tmp_path):
    assert polls_until_stalled(monkeypatch, tmp_path, [60.0] * 100) == TIMEOUT_S / (2 * POLL_S) + 1
