"""An image classifier for MLServer: a picture in, as a tensor or a file, the five most probable classes out."""

import io
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "model-server/model"
LABELS = (FOLDER / "labels.txt").read_text().splitlines()


def read(file):
    """The centre of a picture file, 1 x 3 x 224 x 224, (pixel - 127) / 128."""
    photo = Image.open(io.BytesIO(file)).convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize([round(side * scale) for side in photo.size], Image.BILINEAR)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)[None]


class Classifier(MLModel):
    """EfficientNet-Lite0: a tensor as `read` makes it, or a file in base64."""

    async def load(self) -> bool:
        self.session = onnxruntime.InferenceSession(FOLDER / "efficientnet-lite0.onnx")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        picture = payload.inputs[0]
        if picture.datatype == "BYTES":
            tensor = read(Base64Codec.decode_input(picture)[0])
        else:
            tensor = NumpyCodec.decode_input(picture).astype(np.float32)
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
