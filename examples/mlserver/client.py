"""Classifies a photo with MLServer's own types: a tensor as numbers in JSON or over gRPC, or the file as base64.

Usage: client.py [--nested | --file | --grpc] URL PHOTO
"""

import argparse

import grpc
import numpy as np
import requests
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse
from PIL import Image


def tensor(path):
    """The centre of the photo, 1 x 3 x 224 x 224, (pixel - 127) / 128."""
    photo = Image.open(path).convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize([round(side * scale) for side in photo.size], Image.BILINEAR)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)[None]


parser = argparse.ArgumentParser()
parser.add_argument("--nested", action="store_true", help="data as a list of lists")
parser.add_argument("--file", action="store_true", help="the file, in base64")
parser.add_argument("--grpc", action="store_true", help="over gRPC, the numbers in the tensor's contents")
parser.add_argument("url", help="http://host:port")
parser.add_argument("photo")
options = parser.parse_args()

if options.file:
    with open(options.photo, "rb") as photo:
        picture = Base64Codec.encode_input("picture", [photo.read()], use_bytes=False)
else:
    picture = NumpyCodec.encode_input("picture", tensor(options.photo))
request = InferenceRequest(inputs=[picture])
if options.grpc:
    channel = grpc.insecure_channel(options.url.removeprefix("http://").rstrip("/"))
    call = ModelInferRequestConverter.from_types(request, "classifier", None)
    answer = ModelInferResponseConverter.to_types(GRPCInferenceServiceStub(channel).ModelInfer(call, timeout=120))
else:
    request = request.model_dump(exclude_none=True)
    if options.nested:
        request["inputs"][0]["data"] = tensor(options.photo).tolist()
    answer = requests.post(f"{options.url.rstrip('/')}/v2/models/classifier/infer", json=request, timeout=120)
    answer.raise_for_status()
    answer = InferenceResponse.model_validate(answer.json())
outputs = {output.name: output.data for output in answer.outputs}
for name, probability in zip(outputs["classes"], outputs["probabilities"]):
    print(f"{probability:.3f} {name if isinstance(name, str) else name.decode()}")
