"""Trains a shrunk recipe, or `spectral`, for some CPU-minutes and says what it learned, on held-out speech.

python -m benchmarks.codec_recipes --recipe=encodec --minutes=5
python -m benchmarks.codec_recipes --recipe=spectral --minutes=20 --steps=5000

CPU-minutes are those of the process, of all its threads, from the first step on: compilation and the corpus' decoding
come before. Distances are L1 between log10 mel spectra, before the first step (after k-means) and at the end, of the
moving average that a run saves; they are measured every CPU-minute, too (these are not counted), and with --until_half
training ends there once the distance is halved. Codebooks: what the codes of all held-out speech use, at the end and
every five CPU-minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from configs import codec as spectral
from configs import codec_recipes
from omni_jax.config import Config, resolve
from omni_jax.evals.codec_folder import codebook_use, distances
from omni_jax.input_pipeline.corpus import load_speech
from omni_jax.input_pipeline.loader import Loader, make_codec_loader
from omni_jax.input_pipeline.materials import corpus_source
from omni_jax.models import codec, vocoder
from omni_jax.models.binding import RUNS_ONCE
from omni_jax.parallel.mesh import make_mesh
from omni_jax.train import use_compilation_cache
from omni_jax.training.codec_program import compile_codec_step
from omni_jax.training.codec_stage import method_of
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.recipe_generator import vocoder_input
from omni_jax.training.state import TrainState

CLIP_SECONDS, MAX_CLIPS = 2, 48
MEASURE_EVERY_S, CODEBOOKS_EVERY_S = 60.0, 300.0


def read_config(name: str, steps: int | None) -> Config:
    """The tiny config, its schedule stretched to `steps`."""
    if name != "spectral":
        config = resolve(codec_recipes.get_config(f"{name}_tiny"))
    else:
        config = resolve(spectral.get_config("tiny"))
    steps = steps or config.training.steps
    stretch = steps / config.training.steps
    phases = config.codec_training
    phases = dataclasses.replace(phases, adversarial_start_step=int(stretch * phases.adversarial_start_step))
    training = dataclasses.replace(config.training, steps=steps)
    return dataclasses.replace(config, codec_training=phases, training=training)


def has_codes(config: Config) -> bool:
    return not config.recipe or config.recipe.is_codec


def held_out(config: Config) -> Iterator[Float[np.ndarray, " N"]]:
    """Every clip of the test split at the generator's rate."""
    rate = config.generator.sample_rate_hz
    return (clip.wav() for clip in load_speech(corpus_source(config), "test", rate))


def mel_distance(config: Config, params: Any) -> float:
    """Mean over the middles of some held-out clips."""
    cfg = config.generator
    length = CLIP_SECONDS * cfg.sample_rate_hz // cfg.hop_samples * cfg.hop_samples
    clips = [wav for wav in held_out(config) if len(wav) >= length]
    clips = clips[:: max(1, len(clips) // MAX_CLIPS)][:MAX_CLIPS]
    starts = [(len(wav) - length) // 2 for wav in clips]
    real = np.stack([wav[start : start + length] for wav, start in zip(clips, starts)])
    fake = np.asarray(_again(config, params, real))
    late = real.shape[1] - fake.shape[1]
    pairs = zip(real[:, : real.shape[1] - late], fake)
    return float(np.mean([distances(a, b, cfg.sample_rate_hz)[0] for a, b in pairs]))


def _again(config: Config, params: Any, wav: Float[np.ndarray, "B N"]) -> Any:
    """In time with `wav`, without the end that is late."""
    cfg = config.generator
    if not has_codes(config):
        late = vocoder.latency_samples(cfg) if config.recipe.vocos else 0
        made = vocoder.decode(cfg, params, jax.jit(vocoder_input, static_argnums=0)(cfg, wav))
        return made[:, : made.shape[1] - late]
    return codec.decode_codes(cfg, params, codec.encode_codes(cfg, params, wav))[
        :, codec.decoder_latency_samples(cfg) :
    ]


def use_of_codebooks(config: Config, params: Any) -> list[tuple[float, float]]:
    """Of each level, over all held-out speech: the share of codes that occur, and the entropy over log2(size)."""
    cfg, found = config.generator, []
    unit = 2 * cfg.sample_rate_hz // cfg.hop_samples * cfg.hop_samples
    for wav in held_out(config):
        padded = np.pad(wav, (0, -len(wav) % unit))
        codes = np.asarray(codec.encode_codes(cfg, params, padded[None]))[0]
        found.append(codes[: len(wav) // cfg.hop_samples])
    codes = np.concatenate(found)
    print(f"{len(codes)} held-out frames of codes")
    return codebook_use(codes, cfg.codebook_size)


def train(config: Config, minutes: float, until_half: bool, loader: Loader) -> tuple[TrainState, dict[str, float]]:
    """The trainer's step until its steps or the CPU-minutes are over."""
    mesh, method = make_mesh(config.mesh, jax.devices()), method_of(config)
    everywhere = NamedSharding(mesh, PartitionSpec())
    create = jax.jit(method.create, out_shardings=everywhere, compiler_options=RUNS_ONCE)
    state = create(config.seed)
    step = compile_codec_step(config, mesh, method.step, state)
    state = method.prepare(loader, 0, state)
    values = {"mel_at_start": mel_distance(config, state.params)}
    print(f"mel distance {values['mel_at_start']:.3f} before the first step", flush=True)
    wall, spent, done, measured = time.monotonic(), 0.0, 0, 0.0
    while done < config.training.steps and spent < 60 * minutes:
        began = time.process_time()
        state = method.prepare(loader, done, state) if done else state
        state, metrics = step(state, next(loader))
        done += 1
        jax.block_until_ready(state.params)
        spent += time.process_time() - began
        if spent - measured > MEASURE_EVERY_S:
            measured = spent
            distance = mel_distance(config, state.params)
            shown = " ".join(f"{name} {float(value):.3g}" for name, value in sorted(metrics.items()))
            print(f"step {done}, {spent:.0f} CPU-s, mel distance {distance:.3f}: {shown}", flush=True)
            if has_codes(config) and spent // CODEBOOKS_EVERY_S > (spent - MEASURE_EVERY_S) // CODEBOOKS_EVERY_S:
                print(f"codebooks {use_of_codebooks(config, state.params)}", flush=True)
            if until_half and distance < 0.5 * values["mel_at_start"]:
                break
    values |= {"steps": done, "cpu_s": spent, "wall_s": time.monotonic() - wall}
    return state, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, choices=[*codec_recipes.RECIPES, "spectral"])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--until_half", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", help="file for the results")
    flags = parser.parse_args()
    use_compilation_cache()
    keep_freed_memory()
    config = read_config(flags.recipe, flags.steps)
    loader = make_codec_loader(config)
    state, values = train(config, flags.minutes, flags.until_half, loader)
    loader.close()
    values["mel_at_end"] = mel_distance(config, state.params)
    values["mel_ratio"] = values["mel_at_end"] / values["mel_at_start"]
    if has_codes(config):
        values["codebooks"] = use_of_codebooks(config, state.params)
    print(json.dumps(values, indent=2))
    if flags.json:
        with open(flags.json, "w", encoding="utf-8") as file:
            json.dump(values | {"recipe": flags.recipe, "jax": jax.__version__}, file, indent=2)


if __name__ == "__main__":
    main()
