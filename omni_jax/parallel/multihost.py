"""The processes of one run: starting them, exchanging small texts, agreeing at a step.

Everything that waits has a timeout and names whom it waited for. Arrays travel by XLA's collectives; texts (host names,
outcomes of a save, positions in the data) by the coordination service that `jax.distributed` starts in process 0.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter

import jax
import numpy as np
from jax._src import distributed
from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.errors import UserError
from omni_jax.parallel.roll_call import PeerError, roll_call

TIMEOUT_S = 300.0
_PREFIX = "omni_jax"
_rounds: Counter[str] = Counter()


def initialize() -> None:
    """Joins the run's other processes where the environment names them; a single process needs nothing.

    Read: JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID (ours, see launch/README.md), a Slurm step
    of several tasks, or a TPU pod. Must come before the first use of a device. Raises UserError; PeerError when one
    does not come.
    """
    explicit = os.environ.get("JAX_COORDINATOR_ADDRESS")
    slurm = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in os.environ
    if not (explicit or slurm or _is_tpu_pod()):
        return
    # Gloo carries collectives between CPU processes; other platforms ignore the setting. SIGTERM is handled by the
    # training loop, not by JAX's preemption service.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)
    # JAX's own detection of dead processes kills this one without a word on its step: ours must come first.
    patience = {"heartbeat_timeout_seconds": 7 * 24 * 3600, "initialization_timeout": int(TIMEOUT_S)}
    try:
        if explicit:
            count, rank = (int(os.environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
            roll_call(explicit, count, rank, TIMEOUT_S)
            jax.distributed.initialize(explicit, count, rank, cluster_detection_method="deactivate", **patience)
        else:
            jax.distributed.initialize(local_device_ids=_gpus_of_the_only_task() if slurm else None, **patience)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={explicit} needs JAX_NUM_PROCESSES and JAX_PROCESS_ID ({error}): start with one "
            "of the launchers in launch/"
        ) from error
    put(f"host/{jax.process_index()}", f"{socket.gethostname()}, pid {os.getpid()}")
    gather("hosts known")


def _is_tpu_pod() -> bool:
    """GKE names a pod's hosts in the environment, TPU VMs in Google's metadata, which JAX knows to read."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        return "," in hosts
    return GceTpuCluster.is_env_present() and GceTpuCluster.get_process_count() > 1


def _gpus_of_the_only_task() -> list[int] | None:
    """All GPUs of the node where it has one task: by itself JAX gives a Slurm task the one of its number."""
    alone = re.fullmatch(r"1(\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    count = int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))
    return list(range(count)) if alone and count else None


def is_first() -> bool:
    """Whether this process is the one that speaks: logs, metrics, the commit of a checkpoint."""
    return jax.process_index() == 0


def describe(rank: int) -> str:
    """'process 2 (host b, pid 17)'."""
    if _client() is None:
        return f"process {rank} ({socket.gethostname()}, pid {os.getpid()})"
    return f"process {rank} ({look_up(f'host/{rank}') or 'never seen'})"


def put(name: str, text: str) -> None:
    """Shows `text` to all processes. Raises JaxRuntimeError when the coordination service is gone."""
    _client().key_value_set(f"{_PREFIX}/{name}", text, allow_overwrite=True)


def look_up(name: str) -> str:
    """What `put` has shown; "" when nothing yet. Raises JaxRuntimeError when the coordination service is gone."""
    try:
        return _client().key_value_try_get(f"{_PREFIX}/{name}")
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return ""


def gather(topic: str, text: str = "", timeout_s: float = TIMEOUT_S) -> list[str]:
    """The `text`s of all processes in order of rank; with "" a barrier. All must ask for a topic equally often.

    Raises PeerError, which names the processes that did not come.
    """
    if jax.process_count() == 1:
        return [text]
    client, me, count = _client(), jax.process_index(), jax.process_count()
    this = _rounds[topic]
    _rounds[topic] += 1
    client.key_value_set(f"{_PREFIX}/{topic}/{this}/{me}", f"={text}")
    if this > 1:  # all have read round this - 2, or they would not be here
        client.key_value_delete(f"{_PREFIX}/{topic}/{this - 2}/{me}")
    deadline = time.monotonic() + timeout_s
    found: list[str] = []
    missing: list[int] = []
    for rank in range(count):
        left_ms = max(1, int(1000 * (deadline - time.monotonic())))
        try:
            found.append(client.blocking_key_value_get(f"{_PREFIX}/{topic}/{this}/{rank}", left_ms)[1:])
        except jax.errors.JaxRuntimeError:
            missing.append(rank)
    if missing:
        names = ", ".join(describe(rank) for rank in missing)
        raise PeerError(f"{topic}: no word within {timeout_s:.0f} s from {names}")
    return found


class Votes:
    """Numbers that every process offers at every step; all see the maxima, at the same step.

    With several processes the maxima are computed on the devices and read one step later, so that nobody waits.
    """

    def __init__(self, size: int) -> None:
        self._last = np.zeros(size, np.int32)
        self.late = jax.process_count() > 1  # whether `exchange` answers a step later
        if self.late:
            mesh = Mesh(np.asarray(jax.devices()), ("all",))
            self._rows = NamedSharding(mesh, PartitionSpec("all"))
            everywhere = NamedSharding(mesh, PartitionSpec())
            self._maxima = jax.jit(lambda votes: votes.max(0), out_shardings=everywhere)

    def exchange(self, mine: np.ndarray) -> np.ndarray:
        """The maxima of the previous step's votes (of this step's, for a process alone)."""
        if not self.late:
            return mine
        before = np.asarray(self._last)
        shape = (jax.device_count(), len(mine))
        local = np.broadcast_to(mine.astype(np.int32), (jax.local_device_count(), len(mine)))
        self._last = self._maxima(jax.make_array_from_process_local_data(self._rows, local, shape))
        return before


def _client():  # the coordination service has no public interface; Orbax reads the same attribute
    return distributed.global_state.client
