"""Asks about a photo with Ollama's client.

Usage: client_ollama.py URL PHOTO
"""

import sys

from ollama import Client

url, path = sys.argv[1:]
question = {"role": "user", "content": "What is this?", "images": [path]}
answer = Client(host=url, timeout=120).chat(model="classifier", messages=[question])
print(answer.message.content)
