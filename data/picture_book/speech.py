"""Synthesises the script, the readings and the crowd: a FLAC and a JSON (phones and words with times) an utterance.

`python -m data.picture_book.speech [--worker=0 --workers=2]`. Start one process a core. It can be stopped at any time
and started again: a clip is written under a temporary name and renamed when whole;
what is there already is skipped.
"""

import argparse
import json
import os
import pathlib
from typing import TYPE_CHECKING

import rich.progress
import soundfile

from data.picture_book import classic, crowd, fetch, readings, script, voices
from data.picture_book.timing import SAMPLE_RATE

if TYPE_CHECKING:
    from data.picture_book.kokoro import Kokoro


def clip_paths(build_dir: pathlib.Path, utterance: script.Utterance) -> tuple[pathlib.Path, pathlib.Path]:
    """Where the audio and the timings of an utterance are kept."""
    folder = build_dir / "speech"
    return folder / f"{utterance.id}.flac", folder / f"{utterance.id}.json"


def synthesise(utterance: script.Utterance, kokoro: "Kokoro", build_dir: pathlib.Path) -> float:
    """Writes one clip, the JSON last, and returns its seconds."""
    speak = kokoro.speak if voices.is_kokoro(utterance.voice) else classic.speak
    audio, segments = speak(utterance.spoken, utterance.voice, utterance.speed)
    audio_path, timing_path = clip_paths(build_dir, utterance)
    temporary = audio_path.with_suffix(f".{os.getpid()}.tmp")
    soundfile.write(temporary, audio.clip(-1, 1), SAMPLE_RATE, format="FLAC")
    temporary.rename(audio_path)
    record = {"text": utterance.text, "voice": utterance.voice, "segments": segments}
    temporary.write_text(json.dumps(record))
    temporary.rename(timing_path)
    return audio.size / SAMPLE_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=fetch.BUILD_DIR)
    parser.add_argument("--worker", type=int, default=0, help="which share of the work this process does")
    parser.add_argument("--workers", type=int, default=1, help="how many processes share the work")
    parser.add_argument("--engine", choices=("all", "kokoro", "classic"), default="all")
    args = parser.parse_args()
    (args.build_dir / "speech").mkdir(parents=True, exist_ok=True)
    plan = [*script.plan(), *readings.plan(args.build_dir), *crowd.plan()]
    wanted = [u for u in plan if args.engine in ("all", "kokoro" if voices.is_kokoro(u.voice) else "classic")]
    share = wanted[args.worker :: args.workers]
    todo = [u for u in share if not clip_paths(args.build_dir, u)[1].exists()]
    from data.picture_book.kokoro import Kokoro  # needs ONNX runtime, which reading clip_paths does not

    kokoro = Kokoro(*fetch.kokoro_paths(args.build_dir))
    seconds = 0.0
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn(),
               rich.progress.TextColumn("{task.fields[done]}"))  # fmt: skip
    with rich.progress.Progress(*columns) as progress:
        task = progress.add_task("speech", total=len(share), completed=len(share) - len(todo), done="")
        for utterance in todo:
            seconds += synthesise(utterance, kokoro, args.build_dir)
            progress.update(task, advance=1, done=f"{seconds / 60:.1f} min spoken")


if __name__ == "__main__":
    main()
