"""Classifies a photo with NVIDIA's Triton client.

Usage: client.py [--grpc] [--type FP32|FP16|UINT8|BYTES] [--compress gzip|deflate] URL PHOTO

BYTES (the file itself) is for Triton, and so is --compress over HTTP: kserve takes neither.
"""

import argparse

import numpy as np
from PIL import Image

MODELS = {"FP32": "fp32", "FP16": "fp16", "UINT8": "uint8", "BYTES": "file"}


def pixels(path):
    """The centre of the photo, 1 x 224 x 224 x 3."""
    photo = Image.open(path).convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize([round(side * scale) for side in photo.size], Image.BILINEAR)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    return np.asarray(photo.crop((left, top, left + 224, top + 224)))[None]


def array(path, kind):
    """The photo as the model wants it."""
    if kind == "BYTES":
        with open(path, "rb") as file:
            return np.array([[file.read()]], dtype=object)
    if kind == "UINT8":
        return pixels(path)
    normalised = (pixels(path).astype(np.float32) - 127) / 128
    return normalised.transpose(0, 3, 1, 2).astype(np.float16 if kind == "FP16" else np.float32)


parser = argparse.ArgumentParser()
parser.add_argument("--grpc", action="store_true", help="speak gRPC in place of HTTP/1.1")
parser.add_argument("--type", choices=MODELS, default="FP32")
parser.add_argument("--compress", choices=["gzip", "deflate"])
parser.add_argument("url", help="http://host:port")
parser.add_argument("photo")
options = parser.parse_args()

if options.grpc:
    from tritonclient.grpc import InferenceServerClient, InferInput
else:
    from tritonclient.http import InferenceServerClient, InferInput

data = array(options.photo, options.type)
picture = InferInput("picture", list(data.shape), options.type)
picture.set_data_from_numpy(data)
# In seconds. Over gRPC there is no limit but that of a call.
patience = {} if options.grpc else {"network_timeout": 120}
compression = "compression_algorithm" if options.grpc else "request_compression_algorithm"
client = InferenceServerClient(options.url.removeprefix("http://").rstrip("/"), **patience)
answer = client.infer(MODELS[options.type], [picture], **{compression: options.compress})
for name, probability in zip(answer.as_numpy("classes")[0], answer.as_numpy("probabilities")[0]):
    print(f"{probability:.3f} {name if isinstance(name, str) else name.decode()}")
