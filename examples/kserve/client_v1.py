"""Classifies a photo by the v1 protocol, which is TensorFlow Serving's: the file as base64 in JSON.

Usage: client_v1.py URL PHOTO
"""

import base64
import sys

import requests

url, path = sys.argv[1:]
with open(path, "rb") as photo:
    instance = {"b64": base64.b64encode(photo.read()).decode()}
answer = requests.post(f"{url.rstrip('/')}/v1/models/file:predict", json={"instances": [instance]}, timeout=120)
answer.raise_for_status()
best = answer.json()["predictions"][0]
for name, probability in zip(best["classes"], best["probabilities"]):
    print(f"{probability:.3f} {name}")
