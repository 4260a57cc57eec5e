"""An image classifier for LitServe: a form with a photo in, the five most probable classes out."""

import argparse
from pathlib import Path

import litserve
import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "model-server/model"
LABELS = (FOLDER / "labels.txt").read_text().splitlines()


class Classifier(litserve.LitAPI):
    """EfficientNet-Lite0."""

    def setup(self, device):
        self.session = onnxruntime.InferenceSession(FOLDER / "efficientnet-lite0.onnx")

    def decode_request(self, request):
        photo = Image.open(request["photo"].file).convert("RGB")
        scale = 256 / min(photo.size)
        photo = photo.resize([round(side * scale) for side in photo.size], Image.BILINEAR)
        left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
        pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        return ((pixels - 127) / 128).transpose(2, 0, 1)[None]

    def predict(self, tensor):
        logits = self.session.run(None, {"x": tensor})[0][0]
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def encode_response(self, probabilities):
        best = np.argsort(-probabilities)[:5]
        return [{"class": LABELS[index], "probability": float(probabilities[index])} for index in best]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8800)
    options = parser.parse_args()
    server = litserve.LitServer(Classifier(), accelerator="cpu")
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
