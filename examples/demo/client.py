"""Classifies a photo: the file is the body of the request.

Usage: client.py URL PHOTO
"""

import json
import sys
import urllib.request

url, path = sys.argv[1:]
with open(path, "rb") as photo:
    request = urllib.request.Request(f"{url.rstrip('/')}/predictions/efficientnet-lite0", photo.read())
request.add_header("Content-Type", "image/jpeg")
with urllib.request.urlopen(request, timeout=120) as answer:
    for best in json.load(answer)["predictions"]:
        print(f"{best['probability']:.3f} {best['class']}")
