"""The directory `<workdir>/checkpoints`: which steps are there, which of them count, which may go.

A checkpoint is `<step>/` with a commit marker. What failed verification lies in `set_aside/`, the newest one only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from etils import epath

from omni_jax.checkpoint.integrity import COMMIT_FILE, DamagedError, is_committed, read_commit, verify
from omni_jax.checkpoint.manifest import CheckpointError
from omni_jax.checkpoint.storage import is_bucket, move, place, remove

SET_ASIDE = "set_aside"
_ORBAX_UNFINISHED = ".orbax-checkpoint-tmp"
_GOING = ".going"  # a checkpoint that is being deleted


def require_local(workdir: str | Path) -> None:
    """Raises CheckpointError for an address such as gs://bucket/run, which would become a folder of that name here."""
    if is_bucket(workdir):
        raise CheckpointError(
            f"{workdir}: want a directory of this machine: copy it here (gcloud storage cp -r, aws s3 sync) or mount "
            "the bucket (gcsfuse, mountpoint-s3) and give that path"
        )


def checkpoint_directory(workdir: str | Path) -> epath.Path:
    """Raises CheckpointError where `workdir` is an address that cannot be reached."""
    return place(workdir) / "checkpoints"


def committed_steps(directory: Path | epath.Path) -> list[int]:
    """Steps of the checkpoints that count, ascending."""
    return [step for step in _steps(directory) if is_committed(directory / str(step)) or _is_layout_1(directory, step)]


def unfinished_steps(directory: epath.Path) -> list[int]:
    return sorted(set(_steps(directory)) - set(committed_steps(directory)))


def newest_whole(workdir: str | Path, items: Sequence[str]) -> epath.Path:
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


def check(directory: epath.Path, step: int, items: Sequence[str] = (), part: int = 0, num_parts: int = 1) -> None:
    """Raises DamagedError where a checkpoint is not what was written; layout 1 had no hashes."""
    if not _is_layout_1(directory, step):
        verify(directory / str(step), items, part, num_parts)


def set_aside(directory: epath.Path, step: int, reason: str) -> None:
    """Moves a checkpoint that cannot be used out of the way and says so."""
    target = directory / SET_ASIDE
    remove(target)
    target.mkdir()
    move(directory / str(step), target / str(step))
    print(f"warning: checkpoint {directory / str(step)} is damaged: {reason}; set aside in {target}", file=sys.stderr)


def clean(directory: epath.Path) -> None:
    """Removes what killed saves and deletions have left."""
    for path in directory.glob("*"):
        if path.name.endswith(_GOING) or _ORBAX_UNFINISHED in path.name:
            remove(path)
    for step in unfinished_steps(directory):
        set_aside(directory, step, "its save was cut off before the commit marker")


def discard(directory: epath.Path, step: int) -> None:
    """Removes what a failed save has left, because it may be what fills the disk."""
    for path in directory.glob(f"{step}{_ORBAX_UNFINISHED}*"):
        remove(path)
    if not is_committed(directory / str(step)):
        remove(directory / str(step))


def prune(directory: epath.Path, keep: int, keep_every: int, best_metric: str) -> None:
    """Deletes all checkpoints but the ones that `kept_steps` names."""
    steps = committed_steps(directory)
    kept = kept_steps({step: _metrics(directory, step) for step in steps}, keep, keep_every, best_metric)
    for step in set(steps) - kept:
        path = directory / str(step)
        if is_bucket(path):
            (path / COMMIT_FILE).unlink()
        else:
            path = path.rename(directory / f"{step}{_GOING}")  # so that a kill leaves no half checkpoint under its name
        remove(path)


def kept_steps(metrics: Mapping[int, Mapping[str, float]], keep: int, keep_every: int, best_metric: str) -> set[int]:
    """The last `keep` steps, every multiple of `keep_every`, and the step with the least `best_metric`."""
    kept = set(sorted(metrics)[-max(keep, 1) :])
    if keep_every:
        kept |= {step for step in metrics if step % keep_every == 0}
    rated = {step: values[best_metric] for step, values in metrics.items() if best_metric in values}
    return kept | ({min(rated, key=rated.__getitem__)} if rated else set())


def _steps(directory: Path | epath.Path) -> list[int]:
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal() and path.is_dir())


def _metrics(directory: epath.Path, step: int) -> dict[str, float]:
    try:
        return read_commit(directory / str(step)).get("metrics", {})
    except DamagedError:
        return {}


def _is_layout_1(directory: Path | epath.Path, step: int) -> bool:
    """Whether a checkpoint is of the first layout, whose marker was Orbax' own rename."""
    extra = directory / str(step) / "extra" / "metadata"
    if is_committed(directory / str(step)) or not extra.exists():
        return False
    try:
        return json.loads(extra.read_text(encoding="utf-8")).get("layout_version") == 1
    except (ValueError, OSError):
        return False
