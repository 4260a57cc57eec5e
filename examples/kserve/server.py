"""An image classifier behind the Open Inference Protocol and TF Serving's, with kserve.

One model for each way in which clients send a picture: as a normalised tensor (FP32 and FP16, NCHW), as
pixels (UINT8, NHWC), and as a file (base64, in the v1 protocol). With `--tail`, one more for features of
which a device has run the head of the network.
"""

import argparse
import base64
import io
import uuid
from pathlib import Path

import numpy as np
import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer, model_server
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "model-server/model"
LABELS = (FOLDER / "labels.txt").read_text().splitlines()
SIDE = 224


def normalise(pixels):
    """Pixels, NHWC, as the network takes them: NCHW, (pixel - 127) / 128."""
    return (pixels.astype(np.float32).transpose(0, 3, 1, 2) - 127) / 128


def middle(file):
    """The centre of a picture file as pixels, 1 x 224 x 224 x 3."""
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize([round(side * scale) for side in picture.size], Image.BILINEAR)
    left, top = (picture.width - SIDE) // 2, (picture.height - SIDE) // 2
    return np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)))[None]


class Classifier(Model):
    """EfficientNet-Lite0. Subclasses say how a picture arrives."""

    def __init__(self, name):
        super().__init__(name)
        self.session = onnxruntime.InferenceSession(FOLDER / "efficientnet-lite0.onnx")
        self.ready = True

    def best(self, tensor):
        """The five most probable classes and their probabilities."""
        logits = self.session.run(None, {"x": tensor})[0][0]
        powers = np.exp(logits - logits.max())
        order = np.argsort(-powers)[:5]
        return [LABELS[index] for index in order], (powers / powers.sum())[order]

    def predict(self, payload, headers=None, response_headers=None):
        names, probabilities = self.best(self.tensor(payload.inputs[0].as_numpy()))
        classes = InferOutput("classes", [1, 5], "BYTES")
        classes.set_data_from_numpy(np.array([names], dtype=object), binary_data=True)
        values = InferOutput("probabilities", [1, 5], "FP32")
        values.set_data_from_numpy(probabilities[None].astype(np.float32), binary_data=True)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [classes, values])


class Tensor(Classifier):
    def tensor(self, array):
        return array.astype(np.float32)


class Pixels(Classifier):
    def tensor(self, array):
        return normalise(array)


class File(Classifier):
    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": [self.one(instance) for instance in payload["instances"]]}

    def one(self, instance):
        names, probabilities = self.best(normalise(middle(base64.b64decode(instance["b64"]))))
        pairs = zip(names, probabilities.tolist())
        return [{"class": name, "probability": probability} for name, probability in pairs]


class Tail(Model):
    """What follows a point of the network: the feature there in, all outputs out."""

    def __init__(self, name, file):
        super().__init__(name)
        self.session = onnxruntime.InferenceSession(file)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        feature = payload.get_input_by_name("feature").as_numpy()
        # In the file it has the name of the layer that it was cut at.
        logits = self.session.run(None, {self.session.get_inputs()[0].name: feature})[0]
        output = InferOutput("logits", list(logits.shape), "FP32")
        output.set_data_from_numpy(logits, binary_data=False)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--tail", metavar="FILE", help="ONNX of the tail; its model is called `tail`")
    options = parser.parse_args()
    models = [Tensor("fp32"), Tensor("fp16"), Pixels("uint8"), File("file")]
    if options.tail:
        models.append(Tail("tail", options.tail))
    ModelServer().start(models)
