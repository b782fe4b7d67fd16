"""The manifests of launch/gke.py against the published schema of JobSet v1alpha2 and Kubernetes, without a cluster."""

import pytest

from .script import load_script

CASES = {
    "tpu": ["--tpu=v5p", "--topology=4x4x4", "--hosts=16", "--chips_per_host=4"],
    "several slices": ["--tpu=v6e", "--topology=4x4", "--hosts=4", "--chips_per_host=4", "--slices=2"],
    "gpu": ["--gpu=nvidia-h100-80gb", "--hosts=4", "--chips_per_host=8"],
}
COMMAND = ["--config=configs/pretrain.py:small", "--workdir=/data/run1"]


@pytest.fixture(scope="module")
def gke():
    return load_script("gke")


def manifest(gke, case):
    return gke.jobset(*gke.parse(["--name=run1", "--image=repo/omni_jax:1", *CASES[case], "--", *COMMAND]))


def validated(manifest):
    """What the schema knows of a manifest. Raises where a value has another type or a field that must be is missing."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    return models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict()


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_has_only_what_the_schema_knows(gke, case):
    assert validated(manifest(gke, case)) == manifest(gke, case)


def test_the_schema_finds_a_wrong_name_and_a_wrong_type(gke):
    wrong = manifest(gke, "tpu")
    job = wrong["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["backOffLimit"] = job.pop("backoffLimit")
    assert validated(wrong) != wrong
    job["parallelism"] = "16"
    with pytest.raises(ValueError, match="parallelism"):
        validated(wrong)


def test_all_hosts_of_all_slices_run_the_command(gke):
    (worker,) = manifest(gke, "several slices")["spec"]["replicatedJobs"]
    job = worker["template"]["spec"]
    assert worker["template"]["metadata"]["annotations"] == {gke.EXCLUSIVE: "cloud.google.com/gke-nodepool"}
    assert (worker["replicas"], job["parallelism"], job["completions"]) == (2, 4, 4)
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "omni_jax.train", "--grace_s=55", *COMMAND]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_gpu_pods_are_told_who_they_are(gke):
    (worker,) = manifest(gke, "gpu")["spec"]["replicatedJobs"]
    (container,) = worker["template"]["spec"]["template"]["spec"]["containers"]
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values["JAX_COORDINATOR_ADDRESS"] == "run1-workers-0-0.run1:8476"
    assert values["JAX_NUM_PROCESSES"] == "4"
