"""The directory `<workdir>/checkpoints`: which steps are there, which of them count, which may go.

A checkpoint is `<step>/` with a commit marker. What failed verification lies in `set_aside/`, the newest one only.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omni_jax.checkpoint.integrity import DamagedError, is_committed, read_commit, verify
from omni_jax.checkpoint.manifest import CheckpointError

SET_ASIDE = "set_aside"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib makes one slash of two
_ORBAX_UNFINISHED = ".orbax-checkpoint-tmp"
_GOING = ".going"  # a checkpoint that is being deleted


def require_local(workdir: str | Path) -> None:
    """Raises CheckpointError for an address such as gs://bucket/run, which would become a folder of that name here."""
    if _ADDRESS.match(str(workdir)):
        raise CheckpointError(
            f"{workdir}: not a path of a file system: mount the bucket (gcsfuse, mountpoint-s3, or the volumes of "
            "launch/gke.py and launch/skypilot.yaml) and give the path where it is mounted"
        )


def checkpoint_directory(workdir: str | Path) -> Path:
    """Raises CheckpointError where `workdir` is no path."""
    require_local(workdir)
    return Path(workdir).absolute() / "checkpoints"


def committed_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints that count, ascending."""
    return [step for step in _steps(directory) if is_committed(directory / str(step)) or _is_layout_1(directory, step)]


def unfinished_steps(directory: Path) -> list[int]:
    return sorted(set(_steps(directory)) - set(committed_steps(directory)))


def newest_whole(workdir: str | Path, items: Sequence[str]) -> Path:
    """The newest checkpoint whose `items` are whole, for readers: it changes nothing, but says what it passes over.

    Raises CheckpointError when there is none.
    """
    directory = checkpoint_directory(workdir)
    if not directory.is_dir():
        raise CheckpointError(f"{workdir}: no checkpoints/ in it: train the stage first or check the path")
    for step in reversed(committed_steps(directory)):
        try:
            check(directory, step, items)
            return directory / str(step)
        except DamagedError as error:
            print(f"warning: checkpoint {directory / str(step)} is damaged: {error}; the one before is used")
    raise CheckpointError(f"{workdir}: no whole checkpoint in it: train the stage first")


def check(directory: Path, step: int, items: Sequence[str] = (), part: int = 0, num_parts: int = 1) -> None:
    """Raises DamagedError where a checkpoint is not what was written; layout 1 had no hashes."""
    if not _is_layout_1(directory, step):
        verify(directory / str(step), items, part, num_parts)


def set_aside(directory: Path, step: int, reason: str) -> None:
    """Moves a checkpoint that cannot be used out of the way and says so."""
    target = directory / SET_ASIDE
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (directory / str(step)).rename(target / str(step))
    print(f"warning: checkpoint {directory / str(step)} is damaged: {reason}; set aside in {target}", file=sys.stderr)


def clean(directory: Path) -> None:
    """Removes what killed saves and deletions have left."""
    for path in directory.glob("*"):
        if path.name.endswith(_GOING) or _ORBAX_UNFINISHED in path.name:
            shutil.rmtree(path, ignore_errors=True)
    for step in unfinished_steps(directory):
        set_aside(directory, step, "its save was cut off before the commit marker")


def discard(directory: Path, step: int) -> None:
    """Removes what a failed save has left, because it may be what fills the disk."""
    for path in directory.glob(f"{step}{_ORBAX_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
    if not is_committed(directory / str(step)):
        shutil.rmtree(directory / str(step), ignore_errors=True)


def prune(directory: Path, keep: int, keep_every: int, best_metric: str) -> None:
    """Deletes all checkpoints but the ones that `kept_steps` names."""
    steps = committed_steps(directory)
    kept = kept_steps({step: _metrics(directory, step) for step in steps}, keep, keep_every, best_metric)
    for step in set(steps) - kept:
        going = directory / f"{step}{_GOING}"
        (directory / str(step)).rename(going)  # at once, so that a kill leaves no half checkpoint under its name
        shutil.rmtree(going, ignore_errors=True)


def kept_steps(metrics: Mapping[int, Mapping[str, float]], keep: int, keep_every: int, best_metric: str) -> set[int]:
    """The last `keep` steps, every multiple of `keep_every`, and the step with the least `best_metric`."""
    kept = set(sorted(metrics)[-max(keep, 1) :])
    if keep_every:
        kept |= {step for step in metrics if step % keep_every == 0}
    rated = {step: values[best_metric] for step, values in metrics.items() if best_metric in values}
    return kept | ({min(rated, key=rated.__getitem__)} if rated else set())


def _steps(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal() and path.is_dir())


def _metrics(directory: Path, step: int) -> dict[str, float]:
    try:
        return read_commit(directory / str(step)).get("metrics", {})
    except DamagedError:
        return {}


def _is_layout_1(directory: Path, step: int) -> bool:
    """Whether a checkpoint is of the first layout, whose marker was Orbax' own rename."""
    extra = directory / str(step) / "extra" / "metadata"
    if is_committed(directory / str(step)) or not extra.is_file():
        return False
    try:
        return json.loads(extra.read_text(encoding="utf-8")).get("layout_version") == 1
    except (ValueError, OSError):
        return False
