"""A real Triton server serves the tiny model: two interleaved calls over gRPC are what the session says.

Needs an interpreter with nvidia-pytriton (of which only the server is used), tritonclient[grpc] and jax:
OMNI_JAX_TRITON_PYTHON=.../bin/python (docs/serving.md has the commands).
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from models.tiny import MODEL
from streaming.tiny import CODEC, weights

from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.export import __main__ as export
from omni_jax.export.archive import Bundle, describe, write_archive
from omni_jax.export.directory import whole_or_absent
from omni_jax.export.programs import write_programs
from omni_jax.export.triton import make_repository
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.batch_session import BatchSession
from omni_jax.streaming.tick import TickConfig

PYTHON = os.environ.get("OMNI_JAX_TRITON_PYTHON")
SAMPLES = 1e-4
CHUNKS = (1, 3, 2)  # frames a request
SAMPLING = Sampling(text_temperature=0.7, audio_temperature=0.7)
START_TIMEOUT_S = 180

CLIENT = """
import queue, sys
import numpy as np
import tritonclient.grpc as grpc
given = np.load("given.npz")
answers, said = queue.Queue(), {0: [], 1: []}
with grpc.InferenceServerClient(sys.argv[1]) as client:
    def ask(call, frames, start, end):
        tensors = {"samples": frames.reshape(1, -1)}
        if start:
            tensors["seed"] = np.array([[3 + call]], np.int32)
        if start and call:
            tensors["picture"] = given["picture"]
        inputs = []
        for name, value in tensors.items():
            kind = {"i": "INT32", "f": "FP32"}[value.dtype.kind]
            inputs.append(grpc.InferInput(name, value.shape, kind))
            inputs[-1].set_data_from_numpy(value)
        client.async_stream_infer("omni", inputs, sequence_id=7 + call, sequence_start=start, sequence_end=end,
                                  request_id=str(call))
    client.start_stream(lambda result, error: answers.put((result, error)))
    edges = np.cumsum([0, *given["chunks"]])
    for index, (first, last) in enumerate(zip(edges, edges[1:])):
        for call in (0, 1):
            ask(call, given["samples"][call, first:last], index == 0, last == edges[-1])
    for _ in range(2 * edges[-1]):
        result, error = answers.get(timeout=120)
        if error:
            raise error
        call = int(result.get_response().id)
        said[call].append({name: result.as_numpy(name)[0] for name in ("text", "codes", "speech", "vad", "turn")})
    errors = []
    for samples in (given["samples"][0, 0, :100], np.zeros(126 * 1280, np.float32)):
        ask(0, samples, True, True)
        while (error := answers.get(timeout=120)[1]) is None:
            pass
        errors.append(str(error))
    client.stop_stream()
heard = {f"{name}{call}": np.stack([s[name] for s in said[call]]) for call in said for name in said[call][0]}
np.savez("said.npz", errors=errors, **heard)
"""


WHERE = """
import importlib.util, json, sys, sysconfig
package = importlib.util.find_spec("pytriton").submodule_search_locations[0]
print(json.dumps([package, f"{sys.version_info[0]}.{sys.version_info[1]}", sysconfig.get_config_var("LIBDIR")]))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The gRPC address of a server that has the tiny model."""
    root = tmp_path_factory.mktemp("triton")
    bundle = Bundle(Config(model=MODEL, codec=CODEC), *weights(), b"", 0)
    stored = bundle.stored("float32")
    with whole_or_absent(root / "repository") as directory:
        export_directory = make_repository(directory, MODEL, max_calls=4)
        write_archive(export_directory, bundle, stored)
        write_programs(export_directory, TickConfig(MODEL, CODEC, SAMPLING), stored, platforms=("cpu",))
        describe(export_directory, bundle, stored)
    with (root / "log").open("w") as log, _server(root, log) as port:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _server(root, log):
    """A server on `root/repository`; gives its gRPC port. As in docs/serving.md."""
    found = subprocess.run([PYTHON, "-c", WHERE], check=True, capture_output=True, text=True).stdout
    package, version, libraries = json.loads(found)
    triton, backends = Path(package) / "tritonserver", root / "backends"
    shutil.copytree(triton / "backends", backends)
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    http, grpc = _free_port(), _free_port()
    command = [
        triton / "bin" / "tritonserver",
        f"--model-repository={root / 'repository'}",
        f"--backend-directory={backends}",
        *(f"--http-port={http}", f"--grpc-port={grpc}", "--allow-metrics=false"),
    ]
    environment = os.environ | {
        "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",  # the backend takes the first python3 there
        "LD_LIBRARY_PATH": f"{libraries}:{Path(package).parent / 'nvidia_pytriton.libs'}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
    }
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _ready(http):
            assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()[-3000:]
            time.sleep(0.5)
        yield grpc
    finally:
        process.terminate()
        process.wait(timeout=60)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.skipif(not PYTHON, reason="set OMNI_JAX_TRITON_PYTHON to an interpreter with nvidia-pytriton and jax")
def test_two_interleaved_calls_are_what_the_session_says(served, tmp_path):
    rng = np.random.default_rng(0)
    side, frames = MODEL.vision.image_size, sum(CHUNKS)
    picture = (np.round(255 * rng.random((1, side, side, 3))) / 255).astype(np.float32)
    samples = rng.normal(0, 0.1, (2, frames, 1280)).astype(np.float32)
    np.savez(tmp_path / "given.npz", picture=picture, samples=samples, chunks=CHUNKS)
    done = subprocess.run([PYTHON, "-c", CLIENT, served], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = np.load(tmp_path / "said.npz")
    params, codec_params = weights()
    for call, seen in enumerate([None, picture[0]]):
        session = BatchSession(MODEL, params, CODEC, codec_params, SAMPLING, [seen], seed=3 + call)
        for index, heard in enumerate(samples[call]):
            frame = session.push(heard[None])
            np.testing.assert_array_equal(said[f"text{call}"][index], frame.text)
            np.testing.assert_array_equal(said[f"codes{call}"][index], frame.codes[0])
            np.testing.assert_allclose(said[f"speech{call}"][index], frame.samples[0], atol=SAMPLES)
            np.testing.assert_allclose(said[f"vad{call}"][index], frame.vad, atol=SAMPLES)
            np.testing.assert_allclose(said[f"turn{call}"][index], frame.turn[0], atol=SAMPLES)
    uneven, long = said["errors"]
    assert "samples: 100, want a multiple of 1280" in uneven and "126 frames, at most 125 a request" in long


def test_the_repository_has_the_layout_of_a_server(tmp_path):
    export_directory = make_repository(tmp_path, MODEL, max_calls=9)
    assert export_directory == tmp_path / "omni" / "1" and (export_directory / "model.py").is_file()
    config = (tmp_path / "omni" / "config.pbtxt").read_text()
    assert "max_candidate_sequences: 9" in config and f"dims: [ {MODEL.vision.image_size}, " in config
    assert config.count("{") == config.count("}") and "{{" not in config


def test_calls_of_triton_have_one_row(tmp_path):
    with pytest.raises(UserError, match="--rows=2: Triton's calls run one by one"):
        export.main(["--workdir=run", f"--out={tmp_path / 'out'}", "--format=triton", "--rows=2"])
