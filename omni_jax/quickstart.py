"""Trains, evaluates and reports a small model from start to end; started again, it goes on where it stopped.

python -m omni_jax.quickstart --workdir=runs/quickstart [--size=tiny]

Hardware: 2 CPU cores. Size `tiny`: 20 minutes. Size `voice` (`make tiny`): 2.5 hours, of which tests ran beside the
training for one; it answers 9 of 10 held-out questions and stops when it is interrupted (docs/model_card.md has its
figures beside those of the pair in data/voice).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from configs import align, codec, duplex, perceive, pretrain
from configs import eval as evaluation
from omni_jax.config import Config, EvalConfig, resolve
from omni_jax.config_dict import from_dict
from omni_jax.errors import UserError, run_main
from omni_jax.evals.files import METRICS_FILE, evaluation_directory, write_json
from omni_jax.evaluate import evaluate
from omni_jax.report.summary import RESOURCES_FILE
from omni_jax.report.write import write_report
from omni_jax.train import use_compilation_cache
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.metrics import read_metrics
from omni_jax.training.stages import STAGES, is_complete, run_stage

CONFIG_FILES: dict[str, Callable[[str], ConfigDict]] = {
    "codec": codec.get_config,
    "pretrain": pretrain.get_config,
    "perceive": perceive.get_config,
    "align": align.get_config,
    "duplex": duplex.get_config,
}


def main(arguments: Sequence[str] | None = None) -> int:
    keep_freed_memory()
    parser = argparse.ArgumentParser(prog="python -m omni_jax.quickstart", description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/quickstart", help="a directory for everything that is made")
    parser.add_argument("--size", default="tiny", help="tiny trains in minutes on a laptop")
    flags = parser.parse_args(arguments)
    configs = {stage: stage_config(stage, flags.size, flags.workdir) for stage in STAGES}
    use_compilation_cache()
    run_quickstart(configs, from_dict(EvalConfig, evaluation.get_config("tiny").to_dict()), Path(flags.workdir))
    return 0


def stage_config(stage: str, size: str, workdir: str | Path) -> Config:
    """A stage's config file, with the earlier stages' workdirs below `workdir` filled in."""
    config = resolve(CONFIG_FILES[stage](size))
    table = STAGES[stage]
    sources = {
        "init_from": str(Path(workdir) / table.follows) if table.follows else "",
        "codec_from": str(Path(workdir) / "codec") if table.needs_codec else "",
    }
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **sources))


def run_quickstart(configs: dict[str, Config], eval_config: EvalConfig, workdir: Path) -> None:
    """Every stage that is not finished yet, then the evaluation and the report."""
    corpus = Path(configs["codec"].data.corpus)
    if not corpus.is_dir():
        raise UserError(f"{corpus}: no sample corpus here: run from the repository's root, or build it: make corpus")
    print(f"training {', '.join(configs)} at size {configs['codec'].size} in {workdir}", flush=True)
    for stage, config in configs.items():
        train_if_needed(config, workdir, workdir / stage)
    if not _is_evaluated(workdir):
        with _Measured(workdir, "evaluation"):
            evaluate(eval_config, workdir)
    report = write_report(workdir)
    print(
        f"done: {_resources(workdir)['wall_seconds'] / 60:.1f} minutes of training and evaluation\n"
        f"look:   {report} (one file, opens in any browser), {workdir}/report.json, {workdir}/samples/*.wav\n"
        f"curves: tensorboard --logdir={workdir}\n"
        f"talk:   {sys.executable} -m omni_jax.generate --workdir={workdir} --audio=docs/samples/what_is_this.wav "
        "--image=docs/samples/picture.png --out=answer.wav"
    )


def train_if_needed(config: Config, workdir: Path, stage_workdir: Path) -> None:
    """Trains one stage and prints its line."""
    if is_complete(config, stage_workdir):
        print(f"{config.stage}: finished before, kept", flush=True)
        return
    with _Measured(workdir, config.stage) as measured:
        run_stage(config, stage_workdir)
    jax.clear_caches()  # the stage's programs and constants: nothing after it runs them again
    gc.collect()
    records = read_metrics(stage_workdir)
    losses = f"loss {records[0]['loss']:.3f} -> {records[-1]['loss']:.3f}" if records else "nothing logged"
    print(f"{config.stage}: {config.training.steps} steps in {measured.seconds:.0f} s, {losses}", flush=True)


def _is_evaluated(workdir: Path) -> bool:
    """Whether the evaluation is younger than the model."""
    metrics = evaluation_directory(workdir) / METRICS_FILE
    checkpoints = workdir / "duplex" / "checkpoints"
    return metrics.exists() and metrics.stat().st_mtime > checkpoints.stat().st_mtime


class _Measured:
    """Adds a part's seconds and the peak memory so far to the workdir's resources.json, also when it breaks off."""

    def __init__(self, workdir: Path, part: str) -> None:
        self._workdir, self._part = workdir, part
        self.seconds = 0.0

    def __enter__(self) -> _Measured:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        known = _resources(self._workdir)
        parts = known["seconds"] | {self._part: known["seconds"].get(self._part, 0.0) + self.seconds}
        peak = max(known["peak_memory_bytes"], peak_memory_bytes())
        values = {"wall_seconds": sum(parts.values()), "peak_memory_bytes": peak, "seconds": parts}
        with contextlib.suppress(OSError):  # a full disk has been reported by the part itself
            write_json(self._workdir / RESOURCES_FILE, values)


def _resources(workdir: Path) -> dict:
    path = workdir / RESOURCES_FILE
    if not path.exists():
        return {"wall_seconds": 0.0, "peak_memory_bytes": 0, "seconds": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far. No other process works for the quickstart.

    Children are not added: Linux lets a forked child inherit its parent's peak, so a mere `fork` would double it.
    """
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    run_main(main)
