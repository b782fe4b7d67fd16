"""The whole evaluation on a random model over the beeping picture book: everything real, small and untrained."""

import dataclasses
import json
import re

import numpy as np
import pytest
import soundfile
from small_run import small_run

from omni_jax import evaluate as evaluate_module
from omni_jax.config import EvalConfig
from omni_jax.errors import UserError, run_main
from omni_jax.evals import noisy_turns
from omni_jax.evals import run as evaluation
from omni_jax.evals.held_out import load_held_out, pause_calls, picture_calls, silent_calls
from omni_jax.evals.rollout import run_calls, sampling
from omni_jax.evals.second_sounds import HARMLESS, harmless_calls, interruption_calls
from omni_jax.evals.turn_ends import turn_ends
from omni_jax.evals.turns import turn_states
from omni_jax.evaluate import evaluate, main
from omni_jax.export.bundle import load_bundle
from omni_jax.input_pipeline.dialogue import play
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.models.omni_streaming import Sampling
from omni_jax.report.marks import MARKS
from omni_jax.report.write import write_report
from omni_jax.training.speech_codes import load_or_build_code_cache
from omni_jax.types import TURN_DELAY_FRAMES

SMALL = EvalConfig(
    rows=2,
    call_frames=75,
    pictures=3,
    facts=2,
    repeats=1,
    interruptions=1,
    backchannels=3,
    pauses=2,
    turn_dialogues=2,
    spoken_replies=1,
    ceiling_replies=1,
    timed_calls=1,
    text_batches=1,
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def held(workdir):
    return load_held_out(load_materials(load_bundle(workdir).config, "test"), SMALL.call_frames)


def test_states_named_two_frames_late_are_compared_with_those_of_the_recording(workdir, monkeypatch):
    bundle, scenes = load_bundle(workdir), []
    codes = load_or_build_code_cache(bundle.config, bundle.codec_params, workdir / "duplex")
    materials = load_materials(bundle.config, "test", codes, workdir / "duplex")

    def played(*arguments):
        picture, scene = play(*arguments)
        scenes.append(scene)
        return picture, scene

    monkeypatch.setattr(noisy_turns, "play", played)
    monkeypatch.setattr(noisy_turns, "_predict", lambda *given: [e.fields["turn_state"] for e in given[-1]])
    dialogues = noisy_turns.noisy_turns(materials, bundle.params, 2, seed=0)
    for dialogue, scene in zip(dialogues, scenes, strict=True):
        np.testing.assert_array_equal(dialogue.states, scene.turn_state[:-TURN_DELAY_FRAMES])
    metrics = turn_states(dialogues)[0] | turn_ends(dialogues)
    assert metrics["turn_f1"] == metrics["turn_end_f1_240ms"] == 1.0
    later = turn_ends([d._replace(late_frames=d.late_frames + 2) for d in dialogues])
    assert later["turn_end_f1_240ms"] == 0.0


def test_calls_hold_what_is_said_in_a_quiet_room(held):
    (call,) = pause_calls(held, dataclasses.replace(SMALL, pauses=1))
    (start, end), wav = call.pauses_ms[0], call.user_wav
    assert len(wav) == SMALL.call_frames * 1280 and 400 <= end - start <= 1500
    pause = wav[int(start + 20) * 16 : int(end - 20) * 16]
    room = np.sqrt(np.mean(silent_calls(held, SMALL)[0].user_wav ** 2))
    assert 20 * np.log10(room) == pytest.approx(-62, abs=0.5)
    assert np.sqrt(np.mean(pause**2)) < 2 * room
    assert np.sqrt(np.mean(wav[(400 + 20) * 16 : int(start) * 16] ** 2)) > 20 * room


def test_pictures_come_from_all_classes_in_turn(held):
    calls = picture_calls(held, SMALL)
    assert [call.label for call in calls] == ["cat", "dog", "cat"]
    assert len({call.factors["picture"] for call in calls}) == 3
    assert calls[0].expected == "it is a cat" and calls[0].target_wav is not None


def test_second_sounds(held):
    (stop,) = interruption_calls(held, SMALL)
    assert (stop.question, stop.second_text) == ("tell me about the dog", "okay stop")
    assert stop.identified_ms == pytest.approx(len(stop.second_wav) / 16, abs=60)  # "okay stop": its last word
    assert [call.kind for call in harmless_calls(held, SMALL)] == list(HARMLESS)


def test_changed_audio_leaves_the_call_the_same_up_to_the_change(workdir, held):
    bundle, calls = load_bundle(workdir), picture_calls(held, SMALL)
    first = run_calls(bundle, SMALL, calls)
    changed = calls[1].user_wav.copy()
    changed[40 * 1280 :] += 0.2 * np.random.default_rng(0).standard_normal(len(changed) - 40 * 1280)
    second = run_calls(bundle, SMALL, [calls[0], calls[1]._replace(user_wav=changed.astype(np.float32)), calls[2]])
    for index in (0, 2):
        np.testing.assert_array_equal(first[index].heard_wav, second[index].heard_wav)
    np.testing.assert_array_equal(first[1].text_ids[:40], second[1].text_ids[:40])
    np.testing.assert_array_equal(first[1].heard_wav[: 41 * 1920], second[1].heard_wav[: 41 * 1920])
    assert np.abs(first[1].turn[41:] - second[1].turn[41:]).max() > 1e-4


def test_evaluate_writes_metrics_records_and_scenes_and_the_report_reads_them(workdir, monkeypatch, capsys):
    monkeypatch.setattr(evaluation.reply_asr, "PACKAGES", ("no_such_recogniser",))
    monkeypatch.setattr(evaluate_module, "load_bundle", lambda path: _of_own_sources(load_bundle(path)))
    evaluate(SMALL, workdir)
    metrics = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    for mark in MARKS:
        assert {mark.key, f"{mark.key}_num_examples", f"{mark.key}_ci", f"{mark.key}_floor"} <= set(metrics), mark.key
    assert metrics["picture_naming_accuracy_num_examples"] == 3 and metrics["picture_naming_accuracy_floor"] >= 0.5
    assert metrics["no_answer_rate_num_examples"] == 6
    assert "pip install no-such-recogniser" in metrics["reply_word_error_rate_skipped"]
    assert 0.8 < metrics["text_nll_ratio"] < 1.25  # two random models
    assert metrics["turn_f1_num_examples"] == 2 and metrics["turn_f1_floor"] > 0.2
    assert 0 < metrics["real_time_factor"] < 5
    records = json.loads((workdir / "evaluation" / "records.json").read_text())
    assert len(records["pauses"]) == 2 and len(records["naming"]) == 3
    samples, rate_hz = soundfile.read(workdir / "samples" / "picture.wav")
    assert rate_hz == 24_000 and samples.shape[1] == 2
    said = capsys.readouterr().out
    assert "picture_naming_accuracy" in said and "trained on data.sources" in said
    page = write_report(workdir).read_text()
    assert "what is this" in page and "no recogniser" in page


def _of_own_sources(bundle):
    """As if it had been trained on recordings that are not there any more."""
    data = dataclasses.replace(bundle.config.data, sources={"mine": "folder:nowhere"})
    return dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, data=data))


def test_what_is_measured_is_what_is_heard():
    assert sampling(EvalConfig()) == Sampling()


def test_a_recogniser_that_is_missing_is_said_before_any_call(workdir, monkeypatch):
    monkeypatch.setattr(evaluation, "run_calls", lambda *_: pytest.fail("a call was made"))
    with pytest.raises(UserError, match="nowhere"):
        evaluate(dataclasses.replace(SMALL, recogniser="nowhere"), workdir)


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ("configs/nope.py:tiny", (), r"nope\.py:tiny is not there"),
        ("configs/eval.py:huge", (), "size='huge': want one of tiny, full"),
        ("configs/eval.py:tiny", ("--config.pixtures=3",), 'Did you mean "pictures"'),
        ("configs/eval.py:tiny", ("--config.rows=0",), "rows=0: want at least 1"),
        ("configs/eval.py:tiny", (), "no such directory"),
    ],
)
def test_user_errors_are_one_line(monkeypatch, capsys, config, more, message):
    # ml_collections looks for overrides of a config file in the command line itself.
    monkeypatch.setattr("sys.argv", ["evaluate", f"--config={config}", "--workdir=no/such/run", *more])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and re.search(message, error) and error.count("\n") == 1
