"""An image classifier behind LitServe, for clients of five protocols.

    /predict               a form with a photo
    /v1/chat/completions   OpenAI: a photo as a data: URI in a message
    /api/chat              Ollama: photos in base64 beside a message
    /classify              Hugging Face: base64 and parameters
    /infer/classification  Roboflow: base64 with its type
"""

import argparse
import base64
import io
from pathlib import Path

import litserve
import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "model-server/model"
LABELS = (FOLDER / "labels.txt").read_text().splitlines()


class Classifier(litserve.LitAPI):
    """EfficientNet-Lite0 on the bytes of a picture: the five most probable classes."""

    def setup(self, device):
        self.session = onnxruntime.InferenceSession(FOLDER / "efficientnet-lite0.onnx")

    def classify(self, file):
        photo = Image.open(io.BytesIO(file)).convert("RGB")
        scale = 256 / min(photo.size)
        photo = photo.resize([round(side * scale) for side in photo.size], Image.BILINEAR)
        left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
        pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        logits = self.session.run(None, {"x": ((pixels - 127) / 128).transpose(2, 0, 1)[None]})[0][0]
        powers = np.exp(logits - logits.max())
        best = np.argsort(-powers)[:5]
        return [(LABELS[index], float(powers[index] / powers.sum())) for index in best]

    def predict(self, file):
        return self.classify(file)


class Form(Classifier):
    def decode_request(self, request):
        return request["photo"].file.read()

    def encode_response(self, best):
        return [{"class": name, "probability": probability} for name, probability in best]


class Chat(Classifier):
    def predict(self, request):
        photo = next(part for part in request.messages[-1].content if part.type == "image_url")
        best = self.classify(base64.b64decode(photo.image_url.url.partition(",")[2]))
        yield "\n".join(f"{probability:.3f} {name}" for name, probability in best)


class Ollama(Classifier):
    def decode_request(self, request):
        return base64.b64decode(request["messages"][-1]["images"][0])

    def encode_response(self, best):
        text = "\n".join(f"{probability:.3f} {name}" for name, probability in best)
        return {"model": "classifier", "message": {"role": "assistant", "content": text}, "done": True}


class HuggingFace(Classifier):
    def decode_request(self, request):
        return base64.b64decode(request["inputs"])

    def encode_response(self, best):
        return [{"label": name, "score": probability} for name, probability in best]


class Roboflow(Classifier):
    def decode_request(self, request):
        return base64.b64decode(request["image"]["value"])

    def encode_response(self, best):
        return {"predictions": [{"class": name, "confidence": probability} for name, probability in best]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8800)
    options = parser.parse_args()
    apis = [
        Form(),
        Chat(spec=litserve.OpenAISpec()),
        Ollama(api_path="/api/chat"),
        HuggingFace(api_path="/classify"),
        Roboflow(api_path="/infer/classification"),
    ]
    server = litserve.LitServer(apis, accelerator="cpu")
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
