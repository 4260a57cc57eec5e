"""An image classifier behind NVIDIA's Triton Inference Server, started from Python with PyTriton.

One model for each way in which clients send a picture: as a normalised tensor (FP32 and FP16, NCHW), as
pixels (UINT8, NHWC), and as a file (BYTES).
"""

import argparse
import io
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

FOLDER = Path(__file__).resolve().parent.parent / "model-server/model"
LABELS = np.array((FOLDER / "labels.txt").read_text().splitlines(), dtype=object)
SESSION = onnxruntime.InferenceSession(FOLDER / "efficientnet-lite0.onnx")


def best(tensor):
    """The five most probable classes, for each picture of 3 x 224 x 224, (pixel - 127) / 128."""
    logits = np.concatenate([SESSION.run(None, {"x": one[None]})[0] for one in tensor.astype(np.float32)])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    order = np.argsort(-powers)[:, :5]
    probabilities = np.take_along_axis(powers / powers.sum(1, keepdims=True), order, 1)
    names = np.array([[name.encode() for name in row] for row in LABELS[order]], dtype=object)
    return {"classes": names, "probabilities": probabilities.astype(np.float32)}


def normalise(pixels):
    """Pixels, NHWC, as the network takes them."""
    return (pixels.astype(np.float32).transpose(0, 3, 1, 2) - 127) / 128


def middle(file):
    """The centre of a picture file as pixels, 224 x 224 x 3."""
    photo = Image.open(io.BytesIO(file)).convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize([round(side * scale) for side in photo.size], Image.BILINEAR)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    return np.asarray(photo.crop((left, top, left + 224, top + 224)))


@batch
def classify_tensors(picture):
    return best(picture)


@batch
def classify_pixels(picture):
    return best(normalise(picture))


@batch
def classify_files(picture):
    return best(normalise(np.stack([middle(file) for file in picture[:, 0]])))


MODELS = [
    ("fp32", classify_tensors, np.float32, (3, 224, 224)),
    ("fp16", classify_tensors, np.float16, (3, 224, 224)),
    ("uint8", classify_pixels, np.uint8, (224, 224, 3)),
    ("file", classify_files, bytes, (1,)),
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8900, help="and the two after it, for gRPC and metrics")
    port = parser.parse_args().port
    ports = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    with Triton(config=ports) as triton:
        for name, infer, kind, shape in MODELS:
            triton.bind(
                model_name=name,
                infer_func=infer,
                inputs=[Tensor(name="picture", dtype=kind, shape=shape)],
                outputs=[
                    Tensor(name="classes", dtype=bytes, shape=(5,)),
                    Tensor(name="probabilities", dtype=np.float32, shape=(5,)),
                ],
                config=ModelConfig(max_batch_size=8),
            )
        triton.serve()
