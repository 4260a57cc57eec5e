"""Classifies a photo by the v1 protocol, which is TensorFlow Serving's: the file as base64 in JSON.

Usage: client_v1.py [--json] URL PHOTO

With --json, the answer itself comes first.
"""

import argparse
import base64

import requests

parser = argparse.ArgumentParser()
parser.add_argument("--json", action="store_true")
parser.add_argument("url", help="http://host:port")
parser.add_argument("photo")
options = parser.parse_args()

with open(options.photo, "rb") as photo:
    instance = {"b64": base64.b64encode(photo.read()).decode()}
url = f"{options.url.rstrip('/')}/v1/models/file:predict"
answer = requests.post(url, json={"instances": [instance]}, timeout=120)
answer.raise_for_status()
if options.json:
    print(answer.text)
for best in answer.json()["predictions"][0]:
    print(f"{best['probability']:.3f} {best['class']}")
