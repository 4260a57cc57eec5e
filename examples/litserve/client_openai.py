"""Asks about a photo with OpenAI's client.

Usage: client_openai.py URL PHOTO
"""

import base64
import sys

from openai import OpenAI

url, path = sys.argv[1:]
with open(path, "rb") as photo:
    data = "data:image/jpeg;base64," + base64.b64encode(photo.read()).decode()
client = OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key="none", timeout=120)
question = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": data}}]
answer = client.chat.completions.create(model="classifier", messages=[{"role": "user", "content": question}])
print(answer.choices[0].message.content)
