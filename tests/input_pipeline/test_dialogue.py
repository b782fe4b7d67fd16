"""What the simulator puts on the stage: who speaks when, what stops the assistant, and what every frame is labelled."""

import dataclasses

import numpy as np
import pytest

from omni_jax.input_pipeline import augment, features
from omni_jax.input_pipeline.cast import make_cast, stop_word_end_ms
from omni_jax.input_pipeline.codes import FADE_SAMPLES, TAIL_FRAMES, CodeCache, build_code_cache, fade_out, num_frames
from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.dialogue import (
    dialogue_example,
    draw_turn,
    lay_out,
    max_frames,
    place_answer,
    play,
    say_answer,
)
from omni_jax.input_pipeline.disturbance import REACTION_FRAMES, disturb
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.input_pipeline.records import DataError
from omni_jax.input_pipeline.scene import DECISION_FRAMES, FRAME_MS, GAP_FRAMES, Scene
from omni_jax.input_pipeline.utterance import SAMPLES_PER_MS, utterance, with_pause
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES, Control, Event, TurnState

from .conftest import STORY, loudness_codes

NUM_DIALOGUES = 80


@pytest.fixture(scope="module")
def materials(config, codes):
    return load_materials(config, "train", codes)


@pytest.fixture(scope="module")
def cast(materials):
    return make_cast(materials)


@pytest.fixture(scope="module")
def scenes(materials, cast):
    return [play(materials, cast, i, np.random.default_rng(i))[1] for i in range(NUM_DIALOGUES)]


def told(materials, cast, kind, seed):
    """A long answer with one disturbance."""
    rng = np.random.default_rng(seed)
    scene = Scene(max_frames(materials), materials.speech_codes.silence)
    turn = draw_turn(cast, "tell", 0, None)
    answer = place_answer(utterance(turn.question, None), 400, turn.reply)
    answer, over_ms = disturb(kind, materials, cast, scene, answer, rng)
    say_answer(materials, scene, answer)
    return scene, answer, over_ms


def test_a_dialogue_is_a_function_of_its_seed(materials, cast):
    first, second = (dialogue_example(materials, cast, 3, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.mel, second.mel)
    for name, values in first.fields.items():
        np.testing.assert_array_equal(values, second.fields[name])


def test_the_answer_starts_a_fixed_time_after_the_question(scenes):
    for scene in scenes:
        for end in np.flatnonzero(scene.event == Event.END_OF_USER_TURN):
            assert scene.user_vad[end] == 1 and scene.turn_state[end] == TurnState.TURN
            assert (scene.text[end : end + GAP_FRAMES] == Control.LISTEN).all()
            assert scene.text[end + GAP_FRAMES] == Control.SPEAK
            assert scene.text[end + GAP_FRAMES + 1] > max(Control)
            voiced = np.flatnonzero((scene.codes[end + 1 :] > 0).any(-1))[0]
            assert voiced == GAP_FRAMES
            assert scene.decision[end + 1 : end + GAP_FRAMES].all()


def test_the_assistant_listens_until_it_is_asked_and_in_pauses(scenes):
    paused = 0
    for scene in scenes:
        asked = np.flatnonzero(scene.turn_state == TurnState.TURN)[0]
        assert (scene.text[: asked + 1] == Control.LISTEN).all()
        pause = scene.turn_state == TurnState.PAUSE
        paused += pause.any()
        assert (scene.text[pause] == Control.LISTEN).all() and not scene.user_vad[pause].any()
        assert scene.decision[np.flatnonzero(pause)[:1]].all()
        starts = np.flatnonzero(np.diff(pause, prepend=False) & pause)
        np.testing.assert_array_equal(np.flatnonzero(scene.event == Event.PAUSE), starts)
        assert all(scene.decision[start : start + min(DECISION_FRAMES, 3)].all() for start in starts)
    assert paused >= 0.15 * len(scenes)


def test_the_users_state_is_to_be_named_two_frames_late_and_voice_at_once(materials, scenes):
    scene = scenes[0]
    example = lay_out(materials, scene, np.zeros((8 * scene.num_frames, 80), np.float32))
    state, vad = (example.fields[name][-scene.num_frames :] for name in ("turn_state", "user_vad"))
    np.testing.assert_array_equal(state, [TurnState.IDLE, TurnState.IDLE, *scene.turn_state[:-2]])
    np.testing.assert_array_equal(vad, scene.user_vad)


def test_everything_that_can_happen_happens(scenes):
    events = np.concatenate([scene.event for scene in scenes])
    assert {int(event) for event in Event} == set(events.tolist())
    assert any((scene.event == Event.END_OF_USER_TURN).sum() == 2 for scene in scenes)
    assert any(scene.echo.any() for scene in scenes)


def test_silences_at_the_end_are_short_and_long(scenes):
    def silence_ms(scene):
        return FRAME_MS * (scene.num_frames - 1 - np.flatnonzero((scene.text != Control.LISTEN) | scene.user_vad)[-1])

    silences = np.array([silence_ms(scene) for scene in scenes])
    assert (silences <= 1_500).mean() > 0.3 and (silences > 2_000).mean() > 0.15


@pytest.mark.parametrize("seed", range(8))
def test_an_interruption_is_labelled_by_construction(materials, cast, seed):
    scene, answer, over_ms = told(materials, cast, "interruption", seed)
    (stop,) = np.flatnonzero(scene.text == Control.INTERRUPT)
    (identified,) = np.flatnonzero(scene.event == Event.INTERRUPT)
    assert REACTION_FRAMES[0] <= stop - identified <= REACTION_FRAMES[1]
    assert stop == answer.clip_frame + answer.stop
    assert scene.turn_state[identified] == TurnState.INTERRUPT and scene.user_vad[identified]
    assert (scene.text[stop + 1 :] == Control.LISTEN).all() and Control.END_OF_TURN not in scene.text
    whole = materials.speech_codes.clips[answer.clip.id]
    np.testing.assert_array_equal(scene.codes[stop - 5 : stop], whole[answer.stop - 5 : answer.stop])
    assert (scene.codes[stop + 1 :] == materials.speech_codes.silence).all()
    assert over_ms >= stop * FRAME_MS


@pytest.mark.parametrize("kind", ["backchannel", "noise", "side_talk", "echo"])
def test_what_is_no_interruption_does_not_stop_the_assistant(materials, cast, kind):
    scene, answer, _ = told(materials, cast, kind, 1)
    undisturbed = Scene(max_frames(materials), materials.speech_codes.silence)
    say_answer(materials, undisturbed, answer)
    np.testing.assert_array_equal(scene.text, undisturbed.text)
    np.testing.assert_array_equal(scene.codes, undisturbed.codes)
    spoken = {"backchannel": TurnState.BACKCHANNEL, "side_talk": TurnState.SIDE_TALK}.get(kind)
    heard = scene.echo if kind == "echo" else scene.user
    speaking = slice(answer.first_frame * FRAME_LISTEN_SAMPLES, answer.end_frame * FRAME_LISTEN_SAMPLES)
    assert heard[speaking].any()
    assert set(scene.turn_state.tolist()) == ({0, spoken} if spoken else {0})
    assert scene.user_vad.any() == bool(spoken)


def test_a_pause_moves_words_and_labels(cast):
    spoken = utterance(cast.questions["tell"][0], None)
    paused = with_pause(spoken, np.random.default_rng(0))
    start, end = paused.pause_ms
    assert 400 <= end - start <= 1500
    silence = paused.wav[int(start) * SAMPLES_PER_MS : int(end) * SAMPLES_PER_MS]
    assert not silence.any() and len(paused.wav) - len(spoken.wav) == len(silence)
    for before, after in zip(spoken.words, paused.words, strict=True):
        moved = end - start if before.start_ms >= start else 0
        assert after.start_ms == before.start_ms + moved
    scene = Scene(100, np.zeros(1, np.int32))
    scene.hear(paused, 330, TurnState.TURN)
    silent = np.flatnonzero(scene.turn_state == TurnState.PAUSE) * FRAME_MS
    assert silent[0] >= 330 + start and silent[-1] + FRAME_MS <= 330 + end + FRAME_MS


def test_without_inner_monologue_the_control_tokens_stay(config, codes):
    model = dataclasses.replace(config.model, inner_monologue=False)
    materials = load_materials(dataclasses.replace(config, model=model), "train", codes)
    example = dialogue_example(materials, make_cast(materials), 0, np.random.default_rng(0))
    text = example.fields["text"]
    assert text[text >= 0].max() <= max(Control) and Control.SPEAK in text and Control.END_OF_TURN in text


def test_a_stop_word_is_identified_at_its_end():
    words = [Span("okay", 0, 300), Span("stop", 350, 700), Span("stop", 800, 900)]
    assert stop_word_end_ms(words, 1000.0) == 700
    assert stop_word_end_ms([], 250.0) == 250.0


def test_codes_lie_on_the_frame_grid_of_the_clip(materials, codes):
    (story,) = [clip for clip in materials.replies() if clip.text == STORY]
    own = codes.clips[story.id]
    assert len(own) == -(-len(story.samples) // FRAME_LISTEN_SAMPLES) + TAIL_FRAMES
    assert (own[-TAIL_FRAMES:] == codes.silence).all()
    voiced = features.voiced_frames(story.wav())
    assert np.mean((own[: len(voiced)] > 0).any(-1) == voiced) > 0.9


def test_faded_speech_is_encoded_again(codes):
    rng = np.random.default_rng(0)
    wav = rng.uniform(-0.5, 0.5, 60 * FRAME_SPEECH_SAMPLES).astype(np.float32)
    cache = build_code_cache({"noise": wav}, loudness_codes, "1" * 64)
    assert list(cache.fades["noise"]) == list(range(6, 60 - 8, 2))
    for stop in cache.fades["noise"]:
        faded = cache.faded("noise", stop)
        expected = loudness_codes(np.pad(fade_out(wav, stop), (0, TAIL_FRAMES * FRAME_SPEECH_SAMPLES))[None])[0]
        np.testing.assert_array_equal(faded, expected[: len(faded)])
    start = stop * FRAME_SPEECH_SAMPLES
    assert not fade_out(wav, stop)[start + FADE_SAMPLES :].any()


def test_the_code_cache_is_read_as_it_was_written(tmp_path, codes):
    codes.save(tmp_path)
    read = CodeCache.load(tmp_path, codes.codec_sha256)
    assert list(read.clips) == list(codes.clips) and list(read.fades) == list(codes.fades)
    for name, own in codes.clips.items():
        np.testing.assert_array_equal(read.clips[name], own)
        for stop, tail in codes.fades.get(name, {}).items():
            np.testing.assert_array_equal(read.fades[name][stop], tail)


def test_a_code_cache_of_another_codec_or_cut_off_is_refused(tmp_path, codes):
    with pytest.raises(DataError, match="no code cache"):
        CodeCache.load(tmp_path, codes.codec_sha256)
    path = codes.save(tmp_path)
    with pytest.raises(DataError, match="codes of codec 000000"):
        path.rename(tmp_path / f"codes3-{'2' * 16}.npz")
        CodeCache.load(tmp_path, "2" * 64)
    cut = codes.save(tmp_path)
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(DataError, match="delete it"):
        CodeCache.load(tmp_path, codes.codec_sha256)


def test_speed_moves_word_times(cast):
    clip = cast.questions["tell"][0]
    spoken = utterance(clip, np.random.default_rng(3))
    speed = utterance(clip, None).duration_ms / spoken.duration_ms
    for before, after in zip(utterance(clip, None).words, spoken.words, strict=True):
        assert after.end_ms == pytest.approx(before.end_ms / speed, abs=3)


def test_level_is_that_of_the_speech_not_of_the_pauses():
    tone = np.sin(np.arange(16_000) / 5).astype(np.float32)
    padded = np.concatenate([tone, np.zeros(12_800, np.float32)])
    for wav in (tone, padded):
        speaking = augment.at_level(wav, -26.0)[:16_000]
        assert 20 * np.log10(augment.rms(speaking)) == pytest.approx(-26.0, abs=0.6)


def test_frames_of_a_clip_start_where_it_starts(config):
    assert num_frames(np.zeros(FRAME_SPEECH_SAMPLES + 1)) == 2
