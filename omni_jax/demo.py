"""Shows a trained model three held-out pictures, asks what they are, interrupts a longer answer, and plays it all back.

python -m omni_jax.demo --model=runs/quickstart --out=runs/demo [--play]

Pictures, voices and sentences are of the sample corpus' test split. Every frame goes through the real-time step; times
are those that somebody on the line would have waited.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float
from rich.console import Console

from omni_jax.config import EvalConfig
from omni_jax.errors import UserError, run_main
from omni_jax.evals.duplex import with_second_clip
from omni_jax.evals.examples import FRAME_MS, Call
from omni_jax.evals.held_out import HeldOut, load_held_out, picture_calls
from omni_jax.evals.levels import audible, stop_ms
from omni_jax.evals.scenes import stereo
from omni_jax.evals.second_sounds import interruption_calls
from omni_jax.export.bundle import Bundle, load_bundle
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.models.omni_streaming import Sampling
from omni_jax.report.terminal import legend, picture_blocks, state_strip
from omni_jax.streaming.audio_files import require_writable
from omni_jax.streaming.call import QUIET_CONTROLS, CallReport, stream_call, summarise
from omni_jax.streaming.playback import find_player, play
from omni_jax.streaming.session import FrameResult, Session
from omni_jax.train import use_compilation_cache
from omni_jax.types import FRAME_LISTEN_SAMPLES, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

QUESTION_FRAMES = 40  # a question with the silence before it; it is followed by as much silence as the answer takes
MAX_SECONDS = 12.0
SPOKEN_FRAMES = 10  # the model has been speaking for 0.8 s when it is interrupted


class Interrupter:
    """A session whose user starts `second_wav` once the model has been speaking for a while."""

    def __init__(self, session: Session, second_wav: Float[np.ndarray, " N"]) -> None:
        self._session, self._frames, self._spoken = session, 0, 0
        self._rest = np.pad(second_wav, (0, -len(second_wav) % FRAME_LISTEN_SAMPLES)).reshape(-1, FRAME_LISTEN_SAMPLES)
        self.event_frame: int | None = None

    def push(self, samples: Float[np.ndarray, " N"]) -> FrameResult:
        if self._spoken >= SPOKEN_FRAMES and self.event_frame is None:
            self.event_frame = self._frames
        if self.event_frame is not None and self._frames - self.event_frame < len(self._rest):
            samples = samples + self._rest[self._frames - self.event_frame]
        result = self._session.push(samples)
        self._frames += 1
        self._spoken = 0 if result.control in QUIET_CONTROLS else self._spoken + 1
        return result


class Talk(NamedTuple):
    call: Call
    results: list[FrameResult]
    report: CallReport
    event_frame: int | None  # when the user cut in


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parse(arguments)
    player = find_player() if flags.play else None
    path = _recording_path(Path(flags.out))
    use_compilation_cache()
    console, bundle = Console(), load_bundle(flags.model)
    held = load_held_out(load_materials(bundle.config, "test"), QUESTION_FRAMES)
    talks = []
    for call in choose_calls(held, flags.seed):
        talks.append(converse(bundle, call, flags.seed))
        show(console, talks[-1])
    console.print(f"\n{legend()}", highlight=False)
    write_conversation(path, talks)
    console.print(f"wrote {path}: the user on the left, the model on the right", highlight=False)
    if player:
        play(path, player)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a run's workdir or an exported directory")
    parser.add_argument("--out", default="runs/demo", help="directory for the recording")
    parser.add_argument("--play", action="store_true", help="play the recording")
    parser.add_argument("--seed", type=int, default=0, help="other pictures, voices and questions")
    return parser.parse_args(arguments)


def choose_calls(held: HeldOut, seed: int) -> list[Call]:
    """Three pictures, and a request with a long answer that will be interrupted. Raises UserError if there are none."""
    config = EvalConfig(seed=seed, pictures=len(held.classes), interruptions=1)
    pictures, interrupted = picture_calls(held, config), interruption_calls(held, config)
    if len(pictures) < 3 or not interrupted:
        raise UserError(
            "the model's corpus has no held-out pictures, long answers and words that stop: nothing to show"
        )
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:3]
    return [*(pictures[i] for i in chosen), interrupted[0]]


def converse(bundle: Bundle, call: Call, seed: int) -> Talk:
    """The call, frame by frame; a call with a second sound is interrupted by it."""
    config = bundle.config
    session = Session(
        config.model,
        bundle.params,
        config.codec,
        bundle.codec_params,
        Sampling(),
        call.picture,
        vocabulary=bundle.vocabulary(),
        seed=seed,
    )
    session.warm_up()
    line = session if call.second_wav is None else Interrupter(session, call.second_wav)
    results = list(stream_call(line, call.user_wav, MAX_SECONDS))
    event = None if call.second_wav is None else line.event_frame
    return Talk(call, results, summarise(results, call.user_wav), event)


def show(console: Console, talk: Talk) -> None:
    """Picture, transcript, what both sides did in every 80 ms, and how long it took."""
    call, report = talk.call, talk.report
    console.print()
    if call.picture is not None:
        if console.color_system:
            console.print(picture_blocks(call.picture))
        console.print(f"[dim]a held-out picture of: {call.label}[/dim]", highlight=False)
    console.print(f"user   {call.question}", highlight=False)
    console.print(f"model  [bold]{report.text or '(says nothing)'}[/bold]", highlight=False)
    if talk.event_frame is not None:
        console.print(f"user   {call.second_text}  [dim](cuts in)[/dim]", highlight=False)
    console.print(state_strip(talk.results), soft_wrap=True)
    first = report.first_audio_seconds
    waited = "no answer" if first is None else f"first sound {1000 * first:.0f} ms after the question"
    console.print(
        f"[dim]{waited}{_stopped(talk)}, computed in {report.real_time_factor:.2f} of real time[/dim]", soft_wrap=True
    )


def _stopped(talk: Talk) -> str:
    if talk.event_frame is None:
        return ""
    event_ms = talk.event_frame * FRAME_MS
    known_ms = event_ms + talk.call.identified_ms
    silent = stop_ms(audible(talk.report.speech, SPEECH_SAMPLE_RATE_HZ), event_ms)
    if silent is None:
        return ", spoke on through the interruption"
    return f", silent {silent - known_ms:+.0f} ms from the end of the word that stops it"


def _recording_path(directory: Path) -> Path:
    """Makes the directory before the calls, not after them. Raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made ({error.strerror}): give another --out") from error
    path = directory / "conversation.wav"
    require_writable(path)
    return path


def write_conversation(path: Path, talks: Sequence[Talk]) -> None:
    """All calls one after the other, both sides as they were heard."""
    parts = []
    for talk in talks:
        call = talk.call if talk.event_frame is None else with_second_clip(talk.call, talk.event_frame * FRAME_MS)
        left = soxr.resample(call.user_wav, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ)
        parts.append(stereo(left, talk.report.speech))
    soundfile.write(path, np.concatenate(parts), SPEECH_SAMPLE_RATE_HZ)


if __name__ == "__main__":
    run_main(main)
