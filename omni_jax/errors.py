"""The error that a user can cause and mend: entry points print its one line and leave with exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(ValueError):
    """A wrong file, flag or configuration; the message names the thing, what is wanted and the remedy."""


class ConfigError(UserError):
    """A configuration that cannot work; the message names the field, the value, what is wanted and the remedy."""


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` where a configuration does not hold what it must."""
    if not condition:
        raise ConfigError(message)


def run_main(main: Callable[[], int | None]) -> None:
    """Runs an entry point: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
