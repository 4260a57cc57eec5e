"""Has a sound written down, with OpenAI's client.

Usage: client.py [--chat] URL SOUND
"""

import argparse
import base64
from pathlib import Path

from openai import OpenAI

parser = argparse.ArgumentParser()
parser.add_argument("--chat", action="store_true", help="send it in a message, not in a form")
parser.add_argument("url")
parser.add_argument("sound", type=Path)
options = parser.parse_args()
client = OpenAI(base_url=f"{options.url.rstrip('/')}/v1", api_key="none", timeout=120)
if options.chat:
    data = base64.b64encode(options.sound.read_bytes()).decode()
    question = [
        {"type": "text", "text": "What is said?"},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ]
    answer = client.chat.completions.create(
        model="pocketsphinx", messages=[{"role": "user", "content": question}]
    )
    print(answer.choices[0].message.content)
else:
    with options.sound.open("rb") as sound:
        print(client.audio.transcriptions.create(model="pocketsphinx", file=sound).text)
