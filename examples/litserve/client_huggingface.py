"""Classifies a photo with Hugging Face's client.

Usage: client_huggingface.py URL PHOTO
"""

import sys

from huggingface_hub import InferenceClient

url, path = sys.argv[1:]
client = InferenceClient(model=f"{url.rstrip('/')}/classify", timeout=120)
for best in client.image_classification(path, top_k=5):
    print(f"{best.score:.3f} {best.label}")
