"""Which machines are found to be part of a larger run."""

import pytest

from omni_jax.parallel import multihost


@pytest.mark.parametrize(
    ("hostnames", "workers", "pod"),
    [("a", 4, False), ("a,b", 1, True), (None, 1, False), (None, 16, True), (None, None, False)],
)
def test_a_tpu_pod_is_known_by_its_environment_or_its_metadata(monkeypatch, hostnames, workers, pod):
    """On GKE the environment names the hosts; on TPU VMs nothing does, and Google's metadata are asked."""
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    if hostnames is not None:
        monkeypatch.setenv("TPU_WORKER_HOSTNAMES", hostnames)
    monkeypatch.setattr(multihost.GceTpuCluster, "is_env_present", lambda: workers is not None)
    monkeypatch.setattr(multihost.GceTpuCluster, "get_process_count", lambda: workers)
    assert multihost._is_tpu_pod() is pod


@pytest.mark.parametrize(
    ("tasks", "gpus", "expected"),
    [
        ("1(x4)", "8", list(range(8))),
        ("1", "2", [0, 1]),
        ("8(x4)", "8", None),
        ("1(x2)", None, None),
        (None, "8", None),
    ],
)
def test_a_slurm_task_alone_on_its_node_takes_all_gpus(monkeypatch, tasks, gpus, expected):
    for name, value in (("SLURM_STEP_TASKS_PER_NODE", tasks), ("SLURM_GPUS_ON_NODE", gpus)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert multihost._gpus_of_the_only_task() == expected
