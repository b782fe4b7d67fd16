"""Where files lie: in a directory here, or in a bucket (gs://bucket/run, s3://bucket/run) by way of fsspec.

A bucket has no directories and moves nothing at once, but a file that is written there is whole or absent.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("EPATH_USE_TF", "false")  # buckets through fsspec: TensorFlow takes 11 s to import

import fsspec
from etils import epath

from omni_jax.checkpoint.manifest import CheckpointError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}  # kind of address -> what fsspec needs for it
FOLDERS = Path("~/.cache/omni_jax/workdirs")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # pathlib makes one slash of two

for _kind in PACKAGES:
    fsspec.config.conf[_kind] = {"use_listings_cache": False}  # tensorstore writes there too


def is_bucket(path: str | os.PathLike) -> bool:
    return bool(_ADDRESS.match(os.fspath(path)))


def place(workdir: str | os.PathLike) -> epath.Path:
    """A workdir as a path, which need not exist. Raises CheckpointError for an address that cannot be reached."""
    if not is_bucket(workdir):
        return epath.Path(Path(workdir).absolute())
    kind = _ADDRESS.match(os.fspath(workdir))[1]
    if kind not in PACKAGES:
        raise CheckpointError(f"{workdir}: want a directory, gs://BUCKET/DIRECTORY or s3://BUCKET/DIRECTORY")
    path = epath.Path(re.sub(":/+", "://", os.fspath(workdir), count=1))
    try:
        path.exists()
    except ImportError as error:
        raise CheckpointError(f"{workdir}: {kind}:// needs a package: pip install {PACKAGES[kind]}") from error
    except Exception as error:  # of every kind: no credentials, no bucket, no network
        raise CheckpointError(f"{workdir}: cannot be reached ({error}): check address and credentials") from error
    return path


def local_folder(workdir: str | os.PathLike) -> Path:
    """The workdir itself; for a bucket the folder here in which its small files are written first."""
    if not is_bucket(workdir):
        return Path(workdir)
    address = re.sub(":/+", "://", os.fspath(workdir), count=1).rstrip("/")
    return FOLDERS.expanduser() / f"{address.rpartition('/')[2]}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def relative_files(directory: epath.Path) -> list[str]:
    """All files in a directory and below, by their path in it, sorted."""
    if not is_bucket(directory):
        return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*") if path.is_file())
    system, root = fsspec.core.url_to_fs(str(directory))
    return sorted(name.removeprefix(f"{root}/") for name in system.find(root))


def move(path: epath.Path, target: epath.Path) -> None:
    """A directory, at once where that can be."""
    if not is_bucket(path):
        path.rename(target)
        return
    system, root = fsspec.core.url_to_fs(str(path))
    system.copy(root, fsspec.core.url_to_fs(str(target))[1], recursive=True)
    system.rm(root, recursive=True)


def remove(path: epath.Path) -> None:
    """A directory, as far as that goes."""
    if not is_bucket(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.rmtree()


def write_whole(path: epath.Path, text: str) -> None:
    """A file that is whole or absent."""
    if is_bucket(path):
        path.write_text(text)
        return
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
