"""An image classifier for MLServer: a tensor of a picture in, the five most probable classes out."""

from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

FOLDER = Path(__file__).resolve().parent.parent / "model-server/model"
LABELS = (FOLDER / "labels.txt").read_text().splitlines()


class Classifier(MLModel):
    """EfficientNet-Lite0: input 1x3x224x224, (pixel - 127) / 128."""

    async def load(self) -> bool:
        self.session = onnxruntime.InferenceSession(FOLDER / "efficientnet-lite0.onnx")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        logits = self.session.run(None, {"x": tensor})[0][0]
        powers = np.exp(logits - logits.max())
        best = np.argsort(-powers)[:5]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("classes", [LABELS[index] for index in best]),
                NumpyCodec.encode_output("probabilities", (powers / powers.sum())[best]),
            ],
        )
