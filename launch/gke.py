"""Prints a JobSet manifest for a GKE cluster, from a few facts about the pool; `kubectl apply -f -` starts it.

python launch/gke.py --name=run1 --image=REPO/omni_jax:TAG --tpu=v5p --topology=4x4x4 --hosts=16 --chips_per_host=4 \
    -- --config=configs/pretrain.py:small --workdir=/data/run1 | kubectl apply -f -
python launch/gke.py --name=run1 --image=REPO/omni_jax:TAG --gpu=nvidia-h100-80gb --hosts=4 --chips_per_host=8 -- ...

A lost pod, a stall (exit code 75) or a crash makes the whole set start again, at most --max_restarts times; a
user's error (exit code 2) ends it. The workdir must lie on a volume that all pods see (--claim).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

PORT = 8476
TPU_SELECTORS = {  # value of the node label cloud.google.com/gke-tpu-accelerator
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
GRACE_S = 55  # of the pod's 60, to end a step and save it
FINAL_CODE = 2  # omni_jax.errors: what a restart does not mend


def main(arguments: Sequence[str] | None = None) -> int:
    flags, command = parse(sys.argv[1:] if arguments is None else list(arguments))
    json.dump(jobset(flags, command), sys.stdout, indent=2)  # JSON is YAML
    print()
    return 0


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's flags, and the trainer's after `--`."""
    rest = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="launch/gke.py", description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--image", required=True, help="made from launch/Dockerfile")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--tpu", choices=sorted(TPU_SELECTORS))
    kind.add_argument("--gpu", help="value of the node label cloud.google.com/gke-accelerator")
    parser.add_argument("--topology", help="of a TPU slice, such as 4x4x4")
    parser.add_argument("--hosts", type=int, required=True, help="of one slice, or of the whole GPU job")
    parser.add_argument("--chips_per_host", type=int, required=True)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--claim", default="omni-jax-data", help="persistent volume claim, mounted at /data")
    parser.add_argument("--max_restarts", type=int, default=20)
    flags = parser.parse_args(arguments[:rest])
    if flags.tpu and not flags.topology:
        parser.error("--tpu needs --topology, such as 4x4x4")
    return flags, arguments[rest + 1 :]


def jobset(flags: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """API jobset.x-k8s.io/v1alpha2."""
    failure_policy = {
        "maxRestarts": flags.max_restarts,
        "rules": [
            {"name": "usererror", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]},
        ],
    }
    template: dict[str, Any] = {"spec": job(flags, command)}
    if flags.tpu:  # a slice is a node pool, and all pods of a job must be on one
        template["metadata"] = {"annotations": {EXCLUSIVE: "cloud.google.com/gke-nodepool"}}
    worker = {"name": "workers", "replicas": flags.slices, "template": template}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": flags.name},
        "spec": {
            "failurePolicy": failure_policy,
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "replicatedJobs": [worker],
        },
    }


def job(flags: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """One slice: a pod a host, none of which is replaced alone."""
    user_error = {"containerName": "trainer", "operator": "In", "values": [FINAL_CODE]}
    return {
        "parallelism": flags.hosts,
        "completions": flags.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": user_error}]},
        "template": {"spec": pod(flags, command)},
    }


def pod(flags: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    resource = "google.com/tpu" if flags.tpu else "nvidia.com/gpu"
    container = {
        "name": "trainer",
        "image": flags.image,
        "command": ["python", "-m", "omni_jax.train", f"--grace_s={GRACE_S}", *command],
        "env": environment(flags),
        "resources": {"limits": {resource: flags.chips_per_host}},
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S + 5,
        "nodeSelector": node_selector(flags),
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": flags.claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def node_selector(flags: argparse.Namespace) -> dict[str, str]:
    if flags.gpu:
        return {"cloud.google.com/gke-accelerator": flags.gpu}
    return {
        "cloud.google.com/gke-tpu-accelerator": TPU_SELECTORS[flags.tpu],
        "cloud.google.com/gke-tpu-topology": flags.topology,
    }


def environment(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """TPU pods tell JAX who they are; GPU pods are told here."""
    shared = [{"name": "JAX_COMPILATION_CACHE_DIR", "value": "/data/.xla_cache"}]
    if flags.tpu:
        return shared
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    return [
        *shared,
        {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{flags.name}-workers-0-0.{flags.name}:{PORT}"},
        {"name": "JAX_NUM_PROCESSES", "value": str(flags.hosts)},
        {"name": "JAX_PROCESS_ID", "valueFrom": index},
        {"name": "LD_LIBRARY_PATH", "value": "/usr/local/nvidia/lib64"},  # where GKE puts the driver
        {"name": "JAX_PLATFORMS", "value": "cuda,cpu"},  # an error where there is no GPU after all
    ]


if __name__ == "__main__":
    sys.exit(main())
