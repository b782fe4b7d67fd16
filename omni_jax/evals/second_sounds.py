"""What the user does while the model speaks: says stop, murmurs, talks to somebody else, makes a noise."""

from __future__ import annotations

import numpy as np

from omni_jax.config import EvalConfig
from omni_jax.evals.examples import Call
from omni_jax.evals.held_out import HeldOut
from omni_jax.input_pipeline.cast import stop_word_end_ms
from omni_jax.input_pipeline.corpus import SpeechClip
from omni_jax.input_pipeline.disturbance import BACKCHANNEL_DB, NOISE_DBFS, NOISE_MS, SIDE_TALK_DB
from omni_jax.input_pipeline.noise import background
from omni_jax.input_pipeline.utterance import SAMPLES_PER_MS, utterance

HARMLESS = ("backchannel", "side_talk", "noise")  # in turn


def interruption_calls(held: HeldOut, config: EvalConfig) -> list[Call]:
    """Long answers, and a held-out voice that says stop; `identified_ms` is the end of the first stopping word."""
    rng = np.random.default_rng([config.seed, 4])
    calls, stops = _long_answers(held, config.interruptions, rng), held.cast.stops
    return [_with_stop(call, stops[i % len(stops)]) for i, call in enumerate(calls)] if stops else []


def harmless_calls(held: HeldOut, config: EvalConfig) -> list[Call]:
    """Long answers with a backchannel, side talk or a noise, each as loud as in training."""
    rng = np.random.default_rng([config.seed, 5])
    calls = _long_answers(held, config.backchannels, rng)
    return [_with_harmless(held, call, HARMLESS[i % len(HARMLESS)], rng) for i, call in enumerate(calls)]


def _long_answers(held: HeldOut, count: int, rng: np.random.Generator) -> list[Call]:
    return [held.call("interruption", clip, rng) for clip in held.clips("tell", count, rng)]


def _with_stop(call: Call, clip: SpeechClip) -> Call:
    spoken = utterance(clip, None)
    identified = stop_word_end_ms(spoken.words, spoken.duration_ms)
    factors = call.factors | {"second": clip.id, "second_voice": clip.voice}
    return call._replace(second_wav=spoken.wav, second_text=clip.text, identified_ms=identified, factors=factors)


def _with_harmless(held: HeldOut, call: Call, kind: str, rng: np.random.Generator) -> Call:
    if kind == "noise":
        burst = background(rng, round(rng.uniform(*NOISE_MS)) * SAMPLES_PER_MS, [])
        level_db, text = rng.uniform(*NOISE_DBFS), "(a noise)"
        factors = dict.fromkeys(("second", "second_voice"), f"noise at {level_db} dB")  # no two of them are the same
        wav = burst * np.hanning(len(burst)) ** 0.25
    else:
        clips = held.cast.backchannels if kind == "backchannel" else held.cast.side_talks
        clip = clips[rng.integers(len(clips))]
        level_db, text = rng.uniform(*(BACKCHANNEL_DB if kind == "backchannel" else SIDE_TALK_DB)), clip.text
        factors = {"second": clip.id, "second_voice": clip.voice}
        wav = utterance(clip, None).wav
    wav = (wav * 10.0 ** (level_db / 20.0)).astype(np.float32)
    return call._replace(kind=kind, second_wav=wav, second_text=text, factors=call.factors | factors)
