"""Talks to a trained model: a recorded question in, the spoken answer out, frame by frame as in a live call.

python -m omni_jax.generate --workdir=runs/quickstart --audio=question.wav [--image=cat.png] --out=answer.wav [--play]

The answer is as long as the call, so that both files played together are the conversation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from omni_jax.errors import UserError, run_main
from omni_jax.export.bundle import Bundle, load_bundle
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.audio_files import Recording, read_recording, require_writable, write_speech
from omni_jax.streaming.call import CallReport, stream_call, summarise
from omni_jax.streaming.picture_files import read_picture
from omni_jax.streaming.playback import find_player, play
from omni_jax.streaming.prefix import Picture
from omni_jax.streaming.session import FrameResult, Session
from omni_jax.train import use_compilation_cache
from omni_jax.types import FRAME_RATE_HZ, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

_DEFAULT_EXTRA_SECONDS = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parse(arguments)
    require_writable(flags.out)
    player = find_player() if flags.play else None
    recording = read_recording(flags.audio)
    for note in recording.notes:
        print(f"note: {note}")
    use_compilation_cache()
    bundle = load_bundle(flags.workdir)
    picture = read_picture(flags.image, bundle.config.model.vision.image_size) if flags.image else None
    report = _run_call(flags, bundle, recording, picture)
    write_speech(flags.out, report.speech)
    _print_report(flags.out, report)
    if player:
        play(flags.out, player)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a run's workdir or an exported directory")
    parser.add_argument("--audio", required=True, help="the question: WAV, FLAC, Ogg or MP3")
    parser.add_argument("--image", help="a picture to talk about")
    parser.add_argument("--out", required=True, help="WAV file for the answer, 24 kHz")
    parser.add_argument("--play", action="store_true", help="play the answer when it is complete")
    parser.add_argument("--realtime", action="store_true", help="feed the recording at the speed of a microphone")
    parser.add_argument("--max_seconds", type=float, help="end the call here (default: 15 s after the recording)")
    parser.add_argument(
        "--text_temperature", type=float, default=Sampling.text_temperature, help="0 takes the most likely token"
    )
    parser.add_argument(
        "--audio_temperature", type=float, default=Sampling.audio_temperature, help="0 takes the most likely code"
    )
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(arguments)
    flags.sampling = Sampling(text_temperature=flags.text_temperature, audio_temperature=flags.audio_temperature)
    if flags.max_seconds is not None and not 0.08 <= flags.max_seconds <= 3600:
        raise UserError(f"--max_seconds={flags.max_seconds}: want 0.08 to 3600")
    return flags


def _run_call(flags: argparse.Namespace, bundle: Bundle, recording: Recording, picture: Picture | None) -> CallReport:
    session = Session(
        bundle.config.model,
        bundle.params,
        bundle.config.codec,
        bundle.codec_params,
        flags.sampling,
        picture,
        vocabulary=bundle.vocabulary(),
        seed=flags.seed,
    )
    print(f"compiled the step in {session.warm_up():.1f} s")
    seconds = flags.max_seconds or len(recording.samples) / LISTEN_SAMPLE_RATE_HZ + _DEFAULT_EXTRA_SECONDS
    results: list[FrameResult] = []
    for result in stream_call(session, recording.samples, seconds, flags.realtime):
        _print_frame(len(results), result, results[-1] if results else None)
        results.append(result)
    print()
    return summarise(results, recording.samples)


def _print_frame(index: int, result: FrameResult, previous: FrameResult | None) -> None:
    """A new line, with the time, for each change of what the user is said to do, or the model does; else text only."""
    user, model = result.turn_state.name.lower(), _activity(result)
    if previous is None or user != previous.turn_state.name.lower() or model != _activity(previous):
        print(f"\n{(index + 1) / FRAME_RATE_HZ:7.2f} s  user {user:<11}  model {model:<11} ", end="")
    print(result.text_piece, end="")
    sys.stdout.flush()


def _activity(result: FrameResult) -> str:
    """What the model does: its control token, with the pauses between words and the words counted as speaking."""
    if result.control in (None, "WAIT", "EPAD"):
        return "speaking"
    return result.control.lower()


def _print_report(out: str, report: CallReport) -> None:
    heard = ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in report.heard_user)
    print(f"heard you speak: {heard or 'never'}")
    print(f"text: {report.text or '(none)'}")
    print(f"time to first audio: {_first_audio(report.first_audio_seconds)}")
    print(
        f"real-time factor: {report.real_time_factor:.2f} ({report.seconds:.1f} s call, slowest frame "
        f"{report.slowest_frame_seconds * 1000:.0f} ms of 80)"
    )
    print(f"wrote {out} ({len(report.speech) / SPEECH_SAMPLE_RATE_HZ:.1f} s, in time with the question)")


def _first_audio(seconds: float | None) -> str:
    if seconds is None:
        return "none, the question or the answer was not audible"
    return f"{abs(seconds) * 1000:.0f} ms {'after' if seconds >= 0 else 'before'} the question's last sound"


if __name__ == "__main__":
    run_main(main)
