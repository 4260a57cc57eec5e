"""Reads the text in a photo: a form, sent with requests as the documentation of rapidocr-api says.

Usage: client.py URL PHOTO
"""

import sys

import requests

url, path = sys.argv[1:]
with open(path, "rb") as photo:
    answer = requests.post(f"{url.rstrip('/')}/ocr", files={"image_file": photo}, timeout=120)
answer.raise_for_status()
for line in answer.json().values():
    print(f"{line['score']:.3f} {line['rec_txt']}")
