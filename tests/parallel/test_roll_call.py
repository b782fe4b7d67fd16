"""Processes that find each other before `jax.distributed` starts; here as threads."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from omni_jax.parallel.roll_call import PeerError, roll_call


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def call(address, count, ranks, timeout_s):
    """What each rank gets: None or its PeerError."""
    with ThreadPoolExecutor() as pool:
        return [
            outcome.exception()
            for outcome in [pool.submit(roll_call, address, count, rank, timeout_s) for rank in ranks]
        ]


def test_all_go_on_when_all_have_come(address):
    assert call(address, 3, (2, 1, 0), 30.0) == [None] * 3


def test_the_one_that_does_not_come_is_named(address):
    first, second = call(address, 3, (0, 1), 1.0)
    assert isinstance(first, PeerError) and isinstance(second, PeerError)
    assert "did not come" in str(first) and "process 2; came: 0, 1 (" in str(first)
    assert "process 0 at 127.0.0.1" in str(second)


def test_a_coordinator_that_does_not_answer_is_named(address):
    (error,) = call(address, 2, (1,), 0.6)
    assert f"process 0 at {address} does not answer" in str(error)


def test_a_stranger_at_the_port_is_sent_away(address):
    with ThreadPoolExecutor() as pool:
        first = pool.submit(roll_call, address, 2, 0, 30.0)
        host, port = address.split(":")
        while True:
            try:
                with socket.create_connection((host, int(port)), timeout=5.0) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    break
            except OSError:
                continue
        roll_call(address, 2, 1, 30.0)
        assert first.result() is None
