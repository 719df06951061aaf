"""A stage as a model of Triton's Python backend: ONNX Runtime runs the exported file."""

import json
import os
import sys
from pathlib import Path

# The backend's interpreter does not look there by itself.
sys.path.extend(os.environ["PYTHONPATH"].split(os.pathsep))

import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        file = config["parameters"]["file"]["string_value"]
        directory = Path(args["model_repository"]) / args["model_version"]
        self.session = onnxruntime.InferenceSession(str(directory / file))
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        inputs = {name: utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        wanted = [name for name in self.outputs if name in request.requested_output_names()]
        values = self.session.run(wanted, inputs)
        return utils.InferenceResponse(
            [utils.Tensor(name, value) for name, value in zip(wanted, values, strict=True)]
        )
