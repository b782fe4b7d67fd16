"""A whole evaluation: which calls are run, in which order, and what is measured on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from omni_jax.checkpoint import load_params
from omni_jax.config import Config, EvalConfig
from omni_jax.evals import duplex, latency, naming, questions, reply_asr, text_nll, turns
from omni_jax.evals.entries import skipped
from omni_jax.evals.examples import Call, Reply
from omni_jax.evals.held_out import HeldOut, asked_calls, load_held_out, pause_calls, picture_calls, silent_calls
from omni_jax.evals.noisy_turns import noisy_turns
from omni_jax.evals.resynthesis import resynthesise
from omni_jax.evals.rollout import run_calls, time_calls
from omni_jax.evals.scenes import Scene
from omni_jax.evals.second_sounds import harmless_calls, interruption_calls
from omni_jax.evals.turn_ends import turn_ends
from omni_jax.export.bundle import FINAL_STAGE, Bundle
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.training.speech_codes import load_or_build_code_cache

SCENES_OF_A_KIND = {"picture": 8, "fact": 3, "repeat": 2, "interruption": 2, "backchannel": 2, "pause": 1}
Say = Callable[[str], None]


class Evaluation(NamedTuple):
    metrics: dict[str, Any]
    records: dict[str, list[dict[str, Any]]]  # family -> examples
    scenes: list[Scene]


class _Results:
    """Collects what the families return."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.scenes: list[Scene] = []

    def add(self, family: str, found: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
        self.metrics |= found[0]
        self.records[family] = found[1]

    def show(self, kind: str, calls: Sequence[Call], replies: Sequence[Reply], family: str = "") -> None:
        """Keeps the first calls of a kind, not the best."""
        verdicts = [record["correct"] for record in self.records[family]] if family else [None] * len(calls)
        shown = list(zip(calls, replies, verdicts, strict=True))[: SCENES_OF_A_KIND[kind]]
        self.scenes += [Scene(f"{kind}_{i}", c, r, correct=right) for i, (c, r, right) in enumerate(shown)]

    def show_overlaps(self, kind: str, overlaps: Sequence[duplex.Overlap]) -> None:
        shown = enumerate(overlaps[: SCENES_OF_A_KIND[kind]])
        self.scenes += [Scene(f"{kind}_{i}", o.call, o.heard, event_ms=o.event_ms) for i, o in shown]


def run_evaluation(bundle: Bundle, config: EvalConfig, workdir: Path, say: Say) -> Evaluation:
    """Every metric family on the test split of the corpus that the model was trained on.

    After `data.sources` it is the test split of `data.corpus`: own sources have no calls that could be asked.

    Args:
      workdir: the run; its `pretrain/` is what the text loss is compared with.
      say: is told what happens next.
    """
    recogniser = _recogniser(config)
    if bundle.config.data.sources:
        bundle = dataclasses.replace(bundle, config=_without_sources(bundle.config))
        say(f"trained on data.sources: what follows is measured on {bundle.config.data.corpus}")
    say("loading the held-out corpus")
    stage = _stage_directory(workdir)
    held = load_held_out(load_materials(bundle.config, "test", workdir=stage), config.call_frames)
    results = _Results()
    say("asking about pictures, facts and sentences")
    asked, replies = _ask(bundle, config, held, results)
    say("talking over the model's answers, and pausing")
    _duplex(bundle, config, held, results)
    say("listening in noise")
    codes = load_or_build_code_cache(bundle.config, bundle.codec_params, stage)
    materials = load_materials(bundle.config, "test", codes, stage)
    dialogues = noisy_turns(materials, bundle.params, config.turn_dialogues, config.seed)
    results.add("turns", turns.turn_states(dialogues))
    results.metrics |= turn_ends(dialogues)
    say("timing single calls")
    ticks = time_calls(bundle, config, asked[:: max(1, len(asked) // config.timed_calls)][: config.timed_calls])
    results.add("latency", latency.first_audio(asked, replies, ticks))
    results.metrics |= latency.real_time(ticks)
    say("recognising spoken replies")
    if isinstance(recogniser, str):
        for name in (reply_asr.NAME, naming.NAME_HEARD):
            results.metrics |= skipped(name, recogniser)
    else:
        _spoken(bundle, config, held, results, asked, replies, recogniser)
    say("reading held-out text")
    results.add("text", _text(bundle, config, workdir))
    return Evaluation(results.metrics, results.records, results.scenes)


def _ask(bundle: Bundle, config: EvalConfig, held: HeldOut, results: _Results) -> tuple[list[Call], list[Reply]]:
    """Questions with one right answer. Returns all of them, a call of each kind in turn."""
    pictures = picture_calls(held, config)
    facts = asked_calls(held, "fact", "fact_question", config.facts, config.seed)
    repeats = asked_calls(held, "repeat", "repeat_request", config.repeats, config.seed)
    silent = silent_calls(held, config)
    everything = [*pictures, *facts, *repeats, *silent]
    replies = run_calls(bundle, config, everything)
    of_kind = {
        kind: [reply for call, reply in zip(everything, replies, strict=True) if call.kind == kind]
        for kind in ("picture", "fact", "repeat", "silence")
    }
    results.add(
        "naming", naming.picture_naming(pictures, [r.text for r in of_kind["picture"]], held.classes, config.seed)
    )
    results.add("facts", questions.spoken_questions(facts, of_kind["fact"], config.seed))
    results.add("repeats", questions.repeats(repeats, of_kind["repeat"], config.seed))
    asked, answers = everything[: len(everything) - len(silent)], replies[: len(replies) - len(silent)]
    results.add("no_answers", questions.no_answers(asked, answers, of_kind["silence"]))
    results.show("picture", pictures, of_kind["picture"], "naming")
    results.show("fact", facts, of_kind["fact"], "facts")
    results.show("repeat", repeats, of_kind["repeat"])
    order = np.random.default_rng(config.seed).permutation(len(asked))
    return [asked[i] for i in order], [answers[i] for i in order]


def _duplex(bundle: Bundle, config: EvalConfig, held: HeldOut, results: _Results) -> None:
    stops, harmless, pauses = interruption_calls(held, config), harmless_calls(held, config), pause_calls(held, config)
    overlaps = _overlaps(bundle, config, [*stops, *harmless])
    interrupted = [overlap for overlap in overlaps if overlap.call.kind == "interruption"]
    others = [overlap for overlap in overlaps if overlap.call.kind != "interruption"]
    results.add("interruptions", duplex.interruptions(interrupted))
    stop_share = results.metrics["interruption_stop_share_1000ms"]
    results.add("backchannels", duplex.backchannels(others, stop_share))
    paused = run_calls(bundle, config, pauses)
    results.add("pauses", duplex.pauses(pauses, paused))
    results.show_overlaps("interruption", interrupted)
    results.show_overlaps("backchannel", others)
    results.show("pause", pauses, paused)


def _overlaps(bundle: Bundle, config: EvalConfig, calls: Sequence[Call]) -> list[duplex.Overlap]:
    """Runs each call without and, where the model speaks long enough, with its second sound."""
    alone = run_calls(bundle, config, calls)
    rng = np.random.default_rng([config.seed, 6])
    starts = [duplex.overlap_start_ms(reply, rng) for reply in alone]
    with_sound = [
        call if start is None else duplex.with_second_clip(call, start)
        for call, start in zip(calls, starts, strict=True)
    ]
    heard = run_calls(bundle, config, with_sound)
    rows = zip(with_sound, starts, alone, heard, strict=True)
    return [duplex.Overlap(*row) for row in rows if row[1] is not None]


def _recogniser(config: EvalConfig) -> reply_asr.Recogniser | str:
    """Loaded before anything is asked, so that an evaluation does not break off at its end; or why there is none."""
    try:
        return reply_asr.load_recogniser(config.recogniser)
    except ImportError as error:
        return str(error)


def _spoken(
    bundle: Bundle,
    config: EvalConfig,
    held: HeldOut,
    results: _Results,
    asked: Sequence[Call],
    replies: Sequence[Reply],
    recognise: reply_asr.Recogniser,
) -> None:
    """What a recogniser hears of the first replies, and of every reply about a picture."""
    count = config.spoken_replies
    heard = [
        reply_asr.transcript(recognise, reply.heard_wav) if index < count or call.kind == "picture" else ""
        for index, (call, reply) in enumerate(zip(asked, replies, strict=True))
    ]
    targets = [call for call in asked if call.target_wav is not None][: config.ceiling_replies]
    wavs = resynthesise(bundle, [call.target_wav for call in targets])
    best = [(call.expected, reply_asr.transcript(recognise, wav)) for call, wav in zip(targets, wavs, strict=True)]
    results.add("spoken", reply_asr.spoken_replies(asked[:count], replies[:count], heard[:count], best))
    pictures = [(call, text) for call, text in zip(asked, heard, strict=True) if call.kind == "picture"]
    calls, texts = [call for call, _ in pictures], [text for _, text in pictures]
    results.add("naming_heard", naming.picture_naming(calls, texts, held.classes, config.seed, naming.NAME_HEARD))


def _text(bundle: Bundle, config: EvalConfig, workdir: Path) -> tuple:
    pretrained = workdir / "pretrain"
    if not (pretrained / "checkpoints").is_dir():
        return skipped("text_nll_ratio", f"{pretrained} is not there: nothing to compare the text loss with"), []
    loader = make_loader(_text_only(bundle.config), "test", workdir=_stage_directory(workdir))
    batches = [next(loader) for _ in range(config.text_batches)]
    loader.close()
    after, tokens = text_nll.text_nll(bundle.config.model, bundle.params, batches)
    before, _ = text_nll.text_nll(bundle.config.model, load_params(pretrained)[1], batches)
    return text_nll.text_nll_ratio(after, before, tokens, bundle.config.model.vocab_size)


def _stage_directory(workdir: Path) -> Path:
    """Where the stage notes bad records: with the same place, a process that has trained has the corpus in memory."""
    return workdir / FINAL_STAGE if (workdir / FINAL_STAGE).is_dir() else workdir


def _without_sources(config: Config) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, sources={}))


def _text_only(config: Config) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tasks={"text": 1.0}))
