"""The small files of a workdir in a bucket (metrics, events, records): written here, copied with every save."""

from __future__ import annotations

import shutil
from pathlib import Path

from etils import epath

from omni_jax.checkpoint.storage import is_bucket, local_folder, place, relative_files


class SmallFiles:
    """Those of one run; for a workdir that is a directory there is nothing to copy.

    The bucket is the run: what an earlier start has left in the folder here is forgotten.
    """

    def __init__(self, workdir: str | Path) -> None:
        self.folder = local_folder(workdir)
        self._bucket: epath.Path | None = place(workdir) if is_bucket(workdir) else None
        self._copied: dict[str, tuple[int, int]] = {}  # size and time of what is in the bucket

    def fetch(self) -> None:
        """For one process of this machine; the folder exists afterwards."""
        if self._bucket is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in relative_files(self._bucket):
            if name.startswith("checkpoints/"):
                continue
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((self._bucket / name).read_bytes())
            self._copied[name] = _stamp(path)

    def push(self) -> None:
        """Copies what is new or has grown."""
        if self._bucket is None:
            return
        for name in relative_files(epath.Path(self.folder)):
            path = self.folder / name
            stamp = _stamp(path)
            if path.suffix != ".tmp" and self._copied.get(name) != stamp:
                (self._bucket / name).write_bytes(path.read_bytes())
                self._copied[name] = stamp


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
