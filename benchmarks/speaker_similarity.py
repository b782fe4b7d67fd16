"""Is it one voice? Resemblyzer's similarity of a model's spoken answers, and with the recordings that it learned from.

python -m benchmarks.speaker_similarity --workdir=data/voice [--answers=64] [--json=FILE]

Needs `pip install resemblyzer` (GE2E embeddings, arXiv 1710.10467; PyTorch). The answers are those to held-out
questions and sentences. Similarity is the mean cosine of two embeddings, of all pairs in a set or between two sets; or
of an embedding and a speaker's centroid, as GE2E tells speakers apart. A vector is left out of its own centroid.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float
from resemblyzer import VoiceEncoder, preprocess_wav
from rich.console import Console
from rich.progress import track
from rich.table import Table

from omni_jax.config import EvalConfig
from omni_jax.evals.held_out import asked_calls, load_held_out
from omni_jax.evals.resynthesis import resynthesise
from omni_jax.evals.rollout import run_calls
from omni_jax.export.bundle import load_bundle
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.train import use_compilation_cache
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

SHORTEST_SECONDS = 1.0  # an embedding of less says little
Vectors = Float[np.ndarray, "N E"]  # of length 1


def embeddings(encoder: VoiceEncoder, wavs: Sequence[Float[np.ndarray, " N"]], what: str) -> Vectors:
    """Of 24 kHz recordings that have enough speech."""
    spoken = [preprocess_wav(wav.astype(np.float32), SPEECH_SAMPLE_RATE_HZ) for wav in track(wavs, what)]
    long = [wav for wav in spoken if len(wav) >= SHORTEST_SECONDS * LISTEN_SAMPLE_RATE_HZ]
    return np.array([encoder.embed_utterance(wav) for wav in long])


def within(vectors: Vectors) -> float:
    """The mean over all pairs."""
    return float(np.mean([a @ b for a, b in itertools.combinations(vectors, 2)]))


def between(first: Vectors, second: Vectors) -> float:
    return float((first @ second.T).mean())


def to_centroid(vectors: Vectors, speaker: Vectors | None = None) -> float:
    """Of each vector with the centroid of `speaker`, or with that of the other vectors (GE2E, equations 1 and 8)."""
    centroids = vectors.sum(axis=0) - vectors if speaker is None else speaker.mean(axis=0, keepdims=True)
    centroids = centroids / np.linalg.norm(centroids, axis=-1, keepdims=True)
    return float((vectors * centroids).sum(axis=-1).mean())


def measure(workdir: Path, count: int, embed: Callable[[Sequence, str], Vectors]) -> dict[str, float]:
    bundle = load_bundle(workdir)
    held = load_held_out(load_materials(bundle.config, "test"), EvalConfig().call_frames)
    calls = asked_calls(held, "fact", "fact_question", count // 2, 0)
    calls += asked_calls(held, "repeat", "repeat_request", count - len(calls), 0)
    answers = embed([reply.heard_wav for reply in run_calls(bundle, EvalConfig(), calls)], "answers")
    recordings = embed([call.target_wav for call in calls], "recordings")
    through = embed(resynthesise(bundle, [call.target_wav for call in calls]), "recordings through the codec")
    users = [soxr.resample(call.user_wav, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ) for call in calls]
    others = embed(users, "users")
    return {
        "answers": len(answers),
        "answers_among_themselves": within(answers),
        "answers_and_their_centroid": to_centroid(answers),
        "answers_and_recordings": between(answers, recordings),
        "answers_and_the_centroid_of_recordings": to_centroid(answers, recordings),
        "recordings_among_themselves": within(recordings),
        "recordings_and_their_centroid": to_centroid(recordings),
        "recordings_through_the_codec_and_recordings": between(through, recordings),
        "answers_and_users": between(answers, others),
        "users_and_the_centroid_of_answers": to_centroid(others, answers),
        "users_among_themselves": within(others),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="a run's workdir or an exported directory")
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--json", type=Path, help="file for the results")
    flags = parser.parse_args()
    use_compilation_cache()
    encoder = VoiceEncoder("cpu", verbose=False)
    found = measure(flags.workdir, flags.answers, lambda wavs, what: embeddings(encoder, wavs, what))
    table = Table("similarity", "mean cosine")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), str(value) if name == "answers" else f"{value:.3f}")
    Console().print(table)
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
