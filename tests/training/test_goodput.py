"""The account of a run's wall time, over restarts, and the page that shows it."""

import json
import time

import pytest

from omni_jax.errors import UserError
from omni_jax.report.training import write_training_page
from omni_jax.training.goodput import Goodput, account, goodput, read_attempts
from omni_jax.training.metrics import MetricsWriter


def attempt(began, ended, start_step, last_step, **seconds):
    return {
        "pid": 1, "began": began, "ended": ended, "start_step": start_step, "last_step": last_step,
        "seconds": seconds, "peak_memory_bytes": 10**9, "step_seconds": [0.5, 0.7],
    }  # fmt: skip


ATTEMPTS = [attempt(0, 100, 0, 20, startup=10, step=80, data=4), attempt(130, 200, 15, 40, compile=20, step=50)]


def test_every_second_is_accounted_for_once():
    seconds = account(ATTEMPTS)
    assert sum(seconds.values()) == pytest.approx(200)
    assert (seconds["restart"], seconds["lost"], seconds["step"]) == pytest.approx((30, 80 * 5 / 20, 60 + 50))
    assert seconds["other"] == pytest.approx(6)
    assert goodput(seconds) == pytest.approx(110 / 200)


def test_a_run_writes_its_own_record(tmp_path):
    for start in (0, 2):
        with Goodput(tmp_path, start) as measured:
            for step in (start + 1, start + 2):
                with measured.spend("step"):
                    time.sleep(0.01)
                measured.step_done(step)
    first, second = read_attempts(tmp_path)
    assert (first["last_step"], second["start_step"], second["last_step"]) == (2, 2, 4)
    assert set(first["seconds"]) == {"startup", "compile", "step"} and first["peak_memory_bytes"] > 0
    assert "in steps that count" in measured.line()


def test_the_share_of_waiting_is_of_the_time_since_it_was_asked_for(tmp_path):
    measured = Goodput(tmp_path, 0)
    for waiting, working in ((0.03, 0.01), (0.0, 0.02)):
        with measured.spend("data"):
            time.sleep(waiting)
        with measured.spend("step"):
            time.sleep(working)
        assert (measured.input_wait() > 0.5) == (waiting > working)


def test_the_time_of_one_stage_is_not_the_startup_of_the_next(tmp_path):
    codec, pretrain = tmp_path / "codec", tmp_path / "pretrain"
    for workdir, seconds in ((codec, 0.2), (pretrain, 0.0)):
        workdir.mkdir()
        with Goodput(workdir, 0) as measured:
            time.sleep(seconds)
            measured.step_done(1)
    assert read_attempts(codec)[0]["seconds"]["startup"] > 0
    assert read_attempts(pretrain)[0]["seconds"]["startup"] < 0.1


def test_the_page_of_one_training(tmp_path):
    with pytest.raises(UserError, match="train first"):
        write_training_page(tmp_path)
    (tmp_path / "goodput.json").write_text(json.dumps(ATTEMPTS))
    writer = MetricsWriter(tmp_path, "pretrain", tensorboard=False)
    for step in (1, 2):
        writer.write(step, 3.0, {"text": 2.0, "gradient_norm": 1.0, "gradient_norm/trunk": 0.5}, 1.0, 0.25, {})
    writer.close()
    page = write_training_page(tmp_path).read_text()
    assert "55 %" in page and "pretrain" in page and page.count("<svg") == 3
