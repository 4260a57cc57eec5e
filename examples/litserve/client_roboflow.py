"""Classifies a photo as Roboflow's inference server is asked over HTTP.

Usage: client_roboflow.py URL PHOTO
"""

import base64
import sys

import requests

url, path = sys.argv[1:]
with open(path, "rb") as photo:
    image = {"type": "base64", "value": base64.b64encode(photo.read()).decode()}
request = {"model_id": "classifier/1", "api_key": "none", "image": image}
answer = requests.post(f"{url.rstrip('/')}/infer/classification", json=request, timeout=120)
answer.raise_for_status()
for best in answer.json()["predictions"]:
    print(f"{best['confidence']:.3f} {best['class']}")
