"""Classifies a photo: a form, sent with requests.

Usage: client.py URL PHOTO
"""

import sys

import requests

url, path = sys.argv[1:]
with open(path, "rb") as photo:
    answer = requests.post(f"{url.rstrip('/')}/predict", files={"photo": photo}, timeout=120)
answer.raise_for_status()
for best in answer.json():
    print(f"{best['probability']:.3f} {best['class']}")
