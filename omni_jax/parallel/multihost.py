"""Joining a multi-process run. JAX recognises Slurm, Cloud TPU and Kubernetes; a local launcher sets variables."""

from __future__ import annotations

import os

import jax

_CLUSTER_VARIABLES = ("SLURM_JOB_ID", "TPU_WORKER_HOSTNAMES", "KUBERNETES_SERVICE_HOST")


def initialize() -> None:
    """Joins the run that the environment describes; a process of its own needs nothing and gets nothing.

    Must come before the first use of a device. `launch/local.py` sets OMNI_NUM_PROCESSES, OMNI_PROCESS_ID and
    JAX_COORDINATOR_ADDRESS; on a cluster set OMNI_DISTRIBUTED=1 and JAX finds the rest by itself.
    """
    if "OMNI_NUM_PROCESSES" in os.environ:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            num_processes=int(os.environ["OMNI_NUM_PROCESSES"]), process_id=int(os.environ["OMNI_PROCESS_ID"])
        )
    elif os.environ.get("OMNI_DISTRIBUTED") == "1":
        if not any(name in os.environ for name in _CLUSTER_VARIABLES):
            raise RuntimeError(
                "OMNI_DISTRIBUTED=1 but no cluster was recognised: want one of "
                f"{', '.join(_CLUSTER_VARIABLES)} in the environment, or start with launch/local.py"
            )
        jax.distributed.initialize()
