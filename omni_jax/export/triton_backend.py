"""Model of Triton Inference Server's Python backend, copied into a repository as 1/model.py beside load.py.

A sequence is a call. A request carries any number of whole 80 ms frames and gets a response a frame; the last one is
flagged final. State lives here, by correlation id. Needs jax and flatbuffers in the server's Python.

Tensors go through DLPack: the backend's own conversion to NumPy was built for NumPy 1 and reads NumPy 2's arrays, which
jax needs, as empty, without an error.
"""

import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FRAME_SAMPLES = 1280  # 80 ms at 16 kHz
MAX_FRAMES = 125  # 10 s
OUTPUTS = {"samples": "speech"}  # an input has the name already


class TritonPythonModel:
    """`initialize`, `execute` and `finalize` are what the server calls."""

    def initialize(self, args):
        directory = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(directory))
        from load import Model  # lies beside this file

        config = json.loads(args["model_config"])
        self.max_calls = config["sequence_batching"]["oldest"]["max_candidate_sequences"]
        self.model = Model(directory)
        self.calls = OrderedDict()  # correlation id -> state, the one heard last at the end
        silence = np.zeros((1, FRAME_SAMPLES), np.float32)
        self.model.frame(self.model.start(seed=0), samples=silence, exec_mask=np.ones(1, bool))  # compiles
        shapes = {name: shape for name, shape, _ in self.model.table["start_with_picture"]["inputs"]}
        self.model.start_with_picture(seed=0, picture=np.zeros(shapes["picture"], np.float32))

    def execute(self, requests):
        """Decoupled: answers go through each request's response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                for said in self._answers(request):
                    outputs = [_tensor(OUTPUTS.get(name, name), value) for name, value in said.items()]
                    sender.send(pb_utils.InferenceResponse(output_tensors=outputs))
            except (ValueError, KeyError) as error:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
            if _input(request, "END").item():  # after an error, too
                self.calls.pop(int(_input(request, "CORRID").item()), None)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _answers(self, request):
        """What is said in each frame of the request."""
        call = int(_input(request, "CORRID").item())
        if _input(request, "START").item():
            self.calls[call] = self._start(request)
            if len(self.calls) > self.max_calls:  # calls that the server gave up without an END
                self.calls.popitem(last=False)
        elif call not in self.calls:
            raise ValueError(f"call {call} is not known any more: start it again with sequence_start")
        self.calls.move_to_end(call)
        samples = _input(request, "samples").reshape(-1)
        if len(samples) % FRAME_SAMPLES:
            raise ValueError(f"samples: {len(samples)}, want a multiple of {FRAME_SAMPLES} (80 ms at 16 kHz)")
        if len(samples) > MAX_FRAMES * FRAME_SAMPLES:  # all other calls wait for it
            raise ValueError(f"samples: {len(samples) // FRAME_SAMPLES} frames, at most {MAX_FRAMES} a request")
        for frame in samples.reshape(-1, 1, FRAME_SAMPLES):
            self.calls[call], said = self.model.frame(self.calls[call], samples=frame, exec_mask=np.ones(1, bool))
            yield said

    def _start(self, request):
        seed, picture = _input(request, "seed"), _input(request, "picture")
        seed = 0 if seed is None else int(seed.item())
        if picture is None:
            return self.model.start(seed=seed)
        return self.model.start_with_picture(seed=seed, picture=picture)

    def finalize(self):
        self.calls.clear()


def _input(request, name):
    """The input in memory of its own; None where the request has none of that name."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else np.array(np.from_dlpack(tensor))


def _tensor(name, value):
    """The one row of an output, as a batch of one."""
    return pb_utils.Tensor.from_dlpack(name, np.array(value).reshape(1, -1))
