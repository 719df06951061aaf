"""A model that gives back what it is given, after as many milliseconds as its first element says."""

import os
import sys
import time

# The backend's interpreter does not look there by itself.
sys.path.extend(os.environ["PYTHONPATH"].split(os.pathsep))

import triton_python_backend_utils as utils


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        value = utils.get_input_tensor_by_name(request, "latents").as_numpy()
        time.sleep(float(value.flat[0]) / 1000.0)
        return utils.InferenceResponse([utils.Tensor("image", value)])
