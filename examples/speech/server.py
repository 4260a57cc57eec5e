"""A speech recogniser behind LitServe, for clients of OpenAI's API.

    /v1/audio/transcriptions   a form with a sound
    /v1/chat/completions       a sound in base64 in a message
"""

import argparse
import base64
import io
import wave

import litserve
from pocketsphinx import Decoder

RATE = 16_000


class Recogniser(litserve.LitAPI):
    """PocketSphinx on the samples of a WAV file: what was said, in English."""

    def setup(self, device):
        # Each sound by itself, whatever came before it.
        self.decoder = Decoder(samprate=RATE, cmn="batch", loglevel="FATAL")

    def recognise(self, file):
        with wave.open(io.BytesIO(file)) as sound:
            if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (RATE, 1, 2):
                raise ValueError(f"want one channel of {RATE} samples a second, of 16 bits each")
            samples = sound.readframes(sound.getnframes())
        self.decoder.start_utt()
        self.decoder.process_raw(samples, full_utt=True)
        self.decoder.end_utt()
        said = self.decoder.hyp()
        return said.hypstr if said else ""


class Transcription(Recogniser):
    def decode_request(self, request):
        return request["file"].file.read()

    def predict(self, file):
        return self.recognise(file)

    def encode_response(self, text):
        return {"text": text}


class Chat(Recogniser):
    def predict(self, request):
        sound = next(part for part in request.messages[-1].content if part.type == "input_audio")
        yield self.recognise(base64.b64decode(sound.input_audio.data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8900)
    options = parser.parse_args()
    apis = [Transcription(api_path="/v1/audio/transcriptions"), Chat(spec=litserve.OpenAISpec())]
    server = litserve.LitServer(apis, accelerator="cpu")
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
