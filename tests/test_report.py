"""report.json and report.html from a run's files: a hand-made run of four stages with two scenes."""

import json
import re

import numpy as np
import pytest

from omni_jax.errors import UserError
from omni_jax.evals.entries import mean_entry, ratio_entry, skipped
from omni_jax.evals.examples import Call, Reply
from omni_jax.evals.files import SCENES, evaluation_directory, write_json
from omni_jax.evals.latency import first_audio, real_time
from omni_jax.evals.scenes import Scene, stereo, write_scene
from omni_jax.report.figures import loss_curves, spectrogram_pair
from omni_jax.report.marks import MARKS, formatted, is_met
from omni_jax.report.strip import words_with_times
from omni_jax.report.summary import STAGES, read_stages, summary
from omni_jax.report.write import write_report
from omni_jax.types import Control

PIECES = {20: "▁it", 21: "▁is", 22: "▁a", 23: "▁d", 24: "og"}


class Vocabulary:
    """The two methods of a SentencePiece processor that the scenes need."""

    def id_to_piece(self, piece_id):
        return PIECES[piece_id]

    def is_byte(self, piece_id):
        return False


def noise_burst(spans, seconds, rate_hz):
    """Noise with a syllable-like envelope in each (start, end) in seconds."""
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    on = np.any([(times >= start) & (times < end) for start, end in spans], axis=0)
    noise = np.random.default_rng(0).standard_normal(len(times)) * 0.1 * np.abs(np.sin(2 * np.pi * 2.2 * times))
    return np.where(on, noise, 0).astype(np.float32)


def make_scene(name, kind, event_ms=None):
    frames = 100
    user = noise_burst([(0.3, 1.6)] + ([(3.2, 3.8)] if event_ms else []), 8, 16_000)
    picture = np.zeros((64, 64, 3), np.float32)
    picture[16:48, 16:48] = (0.9, 0.5, 0.2)
    call = Call(kind, user, picture if kind == "picture" else None, "what <is this>", "it is a dog", "dog", {})
    call = call._replace(target_wav=noise_burst([(0, 1.2)], 1.2, 24_000))
    ids = np.full(frames, int(Control.LISTEN))
    ids[24:46] = Control.WAIT
    ids[24], ids[46] = Control.SPEAK, Control.END_OF_TURN
    ids[[25, 29, 33, 36, 37]] = [20, 21, 22, 23, 24]
    turn = np.full((frames, 6), 0.05)
    turn[np.arange(frames), np.where((np.arange(frames) > 3) & (np.arange(frames) < 20), 1, 0)] = 0.75
    reply = Reply(ids, "it is a dog", noise_burst([(2.1, 4.0)], 8.08, 24_000), turn)
    return Scene(name, call, reply, event_ms, correct=kind == "picture" or None)


def make_metrics():
    voices = {"voice": list(range(8))}
    metrics = {}
    for index, mark in enumerate(MARKS[:-5]):
        values = (np.arange(8) <= index % 7).astype(float)
        metrics |= mean_entry(mark.key, values, voices, floor=0.1, ceiling=0.98 if index % 2 else None)
    metrics |= skipped("reply_word_error_rate", "no recogniser: pip install faster-whisper")
    scene = make_scene("a", "picture")
    calls = [scene.call._replace(factors={"voice": i, "question": i}) for i in range(8)]
    latency, records = first_audio(calls, [scene.reply] * 8, [[0.02]])
    metrics |= latency | real_time([[0.02] * 50, [0.03] * 50])
    metrics |= ratio_entry("text_nll_ratio", ([1.05] * 8, [1.0] * 8), voices, floor=2.0, ceiling=1.0)
    return metrics | {"evaluation_seconds": 100.0}, {"latency": records}


def make_run(tmp_path):
    """A workdir as training and evaluation leave it."""
    for number, stage in enumerate(STAGES):
        directory = tmp_path / stage
        directory.mkdir()
        lines = [
            {"step": step, "stage": stage, "loss": 5 * np.exp(-step / 300) + number}
            | {"parts": {"text": 3 * np.exp(-step / 200), "turn": 0.0, "learning_rate": 1e-3}, "seconds": step * 0.2}
            for step in range(10, 1001, 10)
        ]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics, records = make_metrics()
    evaluation = evaluation_directory(tmp_path)
    write_json(evaluation / "metrics.json", metrics)
    write_json(evaluation / "records.json", records)
    write_json(tmp_path / "resources.json", {"wall_seconds": 1100.0, "peak_memory_bytes": 5_000_000_000})
    for scene in (make_scene("picture_0", "picture"), make_scene("interruption_0", "interruption", event_ms=3200.0)):
        write_scene(evaluation / SCENES / scene.name, scene, Vocabulary())
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text()


def test_report_json_has_metrics_costs_and_losses(run, page):
    report = json.loads((run / "report.json").read_text())
    assert report["wall_seconds"] == 1100.0 and report["peak_memory_bytes"] == 5_000_000_000
    assert report["align_first_loss"] == pytest.approx(5 * np.exp(-10 / 300) + 3)
    assert report["duplex_last_loss"] == pytest.approx(5 * np.exp(-1000 / 300) + 4)
    for mark in MARKS:
        assert {mark.key, f"{mark.key}_num_examples", f"{mark.key}_ci", f"{mark.key}_floor"} <= set(report), mark.key


def test_page_is_one_file_with_pictures_and_players(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page), "an outside resource"
    assert page.count("<audio") == 4  # two cards, and the same calls over time
    assert "data:audio/mpeg;base64," in page and "data:image/png;base64," in page
    assert "it is a dog" in page and "no recogniser" in page
    assert page.count("✓ met") + page.count("✗ missed") == sum(mark.mark is not None for mark in MARKS)
    assert len(page) < 15_000_000


def test_only_loss_terms_that_a_stage_has_are_drawn():
    records = [
        {"step": step, "loss": 2.0, "parts": {"text": 1.0, "turn": 0.0, "learning_rate": 0.1}} for step in (1, 2)
    ]
    figure = loss_curves({"pretrain": records})
    assert [name for name in ("text", "turn", "learning_rate", "total") if f"<!-- {name} -->" in figure] == [
        "text",
        "total",
    ]


def test_what_was_said_is_escaped(page):
    assert "<is this>" not in page and "what &lt;is this&gt;" in page


def test_without_resources_the_stages_seconds_are_summed(tmp_path):
    run = make_run(tmp_path)
    (run / "resources.json").unlink()
    report = summary(run, read_stages(run))
    assert report["wall_seconds"] == pytest.approx(len(STAGES) * 200 + 100) and report["peak_memory_bytes"] is None


def test_a_run_that_was_not_evaluated_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="evaluate first"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="no such directory"):
        write_report(tmp_path / "nothing")


def test_a_damaged_evaluation_is_named(tmp_path):
    run = make_run(tmp_path)
    (evaluation_directory(run) / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        write_report(run)


def test_marks_compare_in_their_own_direction():
    marks = {mark.key: mark for mark in MARKS}
    assert is_met(marks["picture_naming_accuracy"], {"picture_naming_accuracy": 0.25})
    assert is_met(marks["no_answer_rate"], {"no_answer_rate": 0.21}) is False
    assert is_met(marks["turn_f1"], {"turn_f1": 0.45, "turn_f1_floor": 0.36}) is False
    assert is_met(marks["turn_f1"], {"turn_f1": 0.47, "turn_f1_floor": 0.36})
    stops = "interruption_stop_share_1000ms"
    assert is_met(marks[stops], {stops: 1.0, f"{stops}_floor": 0.1})
    assert is_met(marks[stops], {stops: 1.0, f"{stops}_floor": 1.0}) is False  # it always stops by itself
    assert is_met(marks["first_audio_ms_median"], {"first_audio_ms_median": 300}) is None
    assert is_met(marks["text_nll_ratio"], {"text_nll_ratio": None}) is None


@pytest.mark.parametrize("samples", [27_360, 54_720])
def test_a_spectrogram_pair_of_any_length(samples):
    """samples / 24000 * 24000 is less than `samples` in floats."""
    wav = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    assert int(samples / 24_000 * 24_000) < samples
    assert spectrogram_pair(wav, wav[:9_600]).startswith("data:image/png")


def test_figures_are_written_for_people():
    assert formatted(0.254, "share") == "25 %" and formatted(None, "ms") == "–"
    assert formatted(1100.0, "seconds") == "18.3 min" and formatted(5.2e9, "bytes") == "5.2 GB"


def test_pieces_join_to_words_at_their_first_frame():
    assert words_with_times(["", "▁it", "", "▁do", "g", "▁"]) == [(0.08, "it"), (0.24, "dog")]


def test_scene_is_cut_after_the_last_sound_and_keeps_its_frames(run):
    facts = json.loads((evaluation_directory(run) / SCENES / "picture_0" / "scene.json").read_text())
    assert len(facts["pieces"]) == len(facts["controls"]) == len(facts["turn"]) == 60  # 4.0 s and 0.8 s of air
    assert facts["pieces"][36:38] == ["▁d", "og"] and facts["controls"][24] == "SPEAK"


def test_stereo_keeps_each_voice_mostly_on_its_side():
    left = np.full(10, 0.5, np.float32)
    mixed = stereo(left, np.zeros(5, np.float32))
    assert mixed.shape == (10, 2) and mixed[0, 0] > 3 * mixed[0, 1] > 0
    assert np.abs(stereo(np.ones(4), np.ones(4))).max() <= 1.0
