"""Who has come, asked before `jax.distributed` starts: its own wait ends in an abort that names nobody.

Process 0 listens at the coordinator's address, before the coordination service does; the others tell it who they are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

_GO = b"go"
_GREETING = "omni_jax"
_MAX_BYTES = 512
_RETRY_S = 0.5


class PeerError(RuntimeError):
    """A process of the run did not answer in time; the message names its rank and host."""


def roll_call(address: str, count: int, rank: int, timeout_s: float) -> None:
    """Returns when all `count` processes have come to `address` (host:port). Raises PeerError, ValueError."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_s
    if rank == 0:
        _wait_for_all(int(port), count, deadline)
    else:
        _report(host.strip("[]"), int(port), rank, deadline)


def _wait_for_all(port: int, count: int, deadline: float) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(port))
        came: dict[int, tuple[str, socket.socket]] = {}
        while len(came) < count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                raise PeerError(_missing(came, count, port)) from None
            connection.settimeout(_RETRY_S)
            with contextlib.suppress(OSError, ValueError):  # anybody may knock at a port
                greeting, rank, name = connection.recv(_MAX_BYTES).decode().split(" ", 2)
                if greeting == _GREETING and 0 < int(rank) < count:
                    came[int(rank)] = (name, connection)  # the last one: it may have been started again
        for _, connection in came.values():
            with contextlib.suppress(OSError):
                connection.sendall(_GO)


def _report(host: str, port: int, rank: int, deadline: float) -> None:
    words = f"{_GREETING} {rank} {socket.gethostname()}, pid {os.getpid()}".encode()
    answered = False
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.01)) as connection:
                connection.sendall(words)
                if connection.recv(len(_GO)) == _GO:
                    return
                answered = True
        except OSError:
            time.sleep(_RETRY_S)  # not there yet, or not yet known to the name service
    why = "waits for others still and names them" if answered else "does not answer"
    raise PeerError(f"roll call: process 0 at {host}:{port} {why}")


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _missing(came: dict[int, tuple[str, socket.socket]], count: int, port: int) -> str:
    absent = ", ".join(f"process {rank}" for rank in range(1, count) if rank not in came)
    present = ", ".join(f"{rank} ({name})" for rank, (name, _) in sorted(came.items()))
    return f"roll call: of {count} processes did not come to port {port}: {absent}; came: 0, {present}".rstrip(", ")
