"""An exported directory is whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from omni_jax.errors import UserError


@contextlib.contextmanager
def whole_or_absent(directory: str | Path) -> Iterator[Path]:
    """A new directory beside `directory`, renamed to it at the end; removed where anything fails.

    Raises UserError if `directory` exists or the disk refuses.
    """
    directory = Path(directory).absolute()
    if directory.exists():
        raise UserError(f"{directory}: exists already: remove it or give another --out")
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror or error}): give another --out") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
