"""launch/local.py: which of several exit codes counts."""

import subprocess
from types import SimpleNamespace

import pytest

from .script import load_script


@pytest.fixture(scope="module")
def local():
    return load_script("local")


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (("exit 2", "sleep 0.3; exit 75"), (2, 0)),  # a user's error here, and a peer that misses this process
        (("exit 0", "sleep 0.3; exit 75"), (75, 0)),
        (("kill -9 $$", "sleep 0.3; exit 75"), (-9, 1)),
    ],
)
def test_a_users_error_is_final(local, commands, expected):
    group = [subprocess.Popen(["bash", "-c", command]) for command in commands]
    assert local.watch(group, 10.0, SimpleNamespace(count=0, stop=0)) == expected
