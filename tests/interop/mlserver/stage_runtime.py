"""A stage as a runtime of MLServer: ONNX Runtime runs the exported file."""

import onnxruntime
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver import MLModel


class StageRuntime(MLModel):
    """The model."""

    async def load(self) -> bool:
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {value.name: NumpyCodec.decode_input(value) for value in payload.inputs}
        wanted = [value.name for value in payload.outputs or []]
        wanted = wanted or [value.name for value in self.session.get_outputs()]
        outputs = [
            NumpyCodec.encode_output(name, value)
            for name, value in zip(wanted, self.session.run(wanted, inputs), strict=True)
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
