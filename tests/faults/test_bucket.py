"""A run whose workdir is a bucket: killed, gone on with on a machine that has nothing of it, damaged in the bucket.

Needs gcsfs and gcp-storage-emulator, which serves Google Cloud Storage's HTTP interface from memory.
"""

import os
import signal
import urllib.request

import pytest
from toy_runs import curve, finish, start, wait_until

STEPS = 12
ADDRESSES = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")  # of gcsfs, of tensorstore
HNS = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
WORKDIR = "gs://runs/first"


@pytest.fixture
def bucket(monkeypatch):
    """A file system object on the emulator; runs that are started find it by their environment."""
    monkeypatch.setenv(HNS, "false")  # read at the import; it would ask Google what kind of bucket it is
    gcsfs = pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with emulator.create_server("localhost", 0, in_memory=True, default_bucket="runs") as server:
        address = f"http://localhost:{server._api._httpd.server_port}"
        urllib.request.urlopen(address).close()
        for name in ADDRESSES:
            monkeypatch.setenv(name, address)
        yield gcsfs.GCSFileSystem(
            endpoint_url=address, token="anon", use_listings_cache=False, skip_instance_cache=True
        )


def start_at(home, *flags):
    """A machine of its own: what is not in the bucket it does not have."""
    home.mkdir(exist_ok=True)
    return start(
        WORKDIR, STEPS, *flags, environment={"HOME": str(home)} | {name: os.environ[name] for name in (*ADDRESSES, HNS)}
    )


def committed(bucket):
    """Steps, ascending: every third, or the next where a busy emulator's answer failed a save, which is tried again."""
    return sorted(int(path.split("/")[-2]) for path in bucket.glob("runs/first/checkpoints/*/commit.json"))


def test_a_run_in_a_bucket_goes_on_anywhere(bucket, tmp_path):
    finish(start(tmp_path / "whole", STEPS, "--step_s=0"))
    process = start_at(tmp_path / "a", "--step_s=0", "--hold_at=8", "--checkpoint_every=3")
    wait_until(lambda: max(committed(bucket), default=0) >= 6, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    newest = committed(bucket)[-1]
    assert f"going on from step {newest}" in finish(start_at(tmp_path / "b", "--step_s=0", "--checkpoint_every=3"))
    bucket.get("runs/first/metrics.jsonl", str(tmp_path / "metrics.jsonl"))
    assert curve(tmp_path) == curve(tmp_path / "whole")
    assert bucket.exists("runs/first/goodput.json")
    damaged = f"runs/first/checkpoints/{STEPS}"
    largest = max(bucket.find(damaged, detail=True).values(), key=lambda file: file["size"])["name"]
    bucket.pipe(largest, bucket.cat(largest)[:-1] + b"?")
    before = committed(bucket)[-2]
    output = finish(start_at(tmp_path / "c", "--step_s=0"))
    assert f"{STEPS} is damaged" in output and "set aside" in output
    assert f"going on from step {before}" in output, output
    assert bucket.exists(f"runs/first/checkpoints/{STEPS}/commit.json")
