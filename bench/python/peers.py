"""Codes pictures with Pillow's codecs for `sidecod-bench fidelity`, one thread, one picture after another.

A request on standard input is a line of JSON and `width * height * 3` bytes of RGB:
{"format", "options", "width", "height", "shrink", "repeat"}. `shrink`, if not 0, is the side to
which the picture is reduced before it is coded and from which it is enlarged again. The answer is
{"bytes", "encode_ms", "decode_ms"}, the best of `repeat` times, and the decoded RGB.
"""

import io
import json
import sys
import time

from PIL import Image, features


def main():
    """Answers until standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    versions = {name: features.version(name) for name in ("libjpeg_turbo", "webp", "avif")}
    answer(sink, {"pillow": Image.__version__, **versions})
    while line := source.readline():
        job = json.loads(line)
        size = (job["width"], job["height"])
        rgb = source.read(3 * size[0] * size[1])
        picture, best = Image.frombytes("RGB", size, rgb), [float("inf"), float("inf")]
        for _ in range(job["repeat"]):
            start = time.perf_counter()
            small = picture
            if job["shrink"]:
                scale = job["shrink"] / max(size)
                small = picture.resize([max(1, round(side * scale)) for side in size], Image.LANCZOS)
            file = io.BytesIO()
            small.save(file, job["format"], **job["options"])
            coded = time.perf_counter()
            decoded = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
            if job["shrink"]:
                decoded = decoded.resize(size, Image.BICUBIC)
            decoded.load()
            done = time.perf_counter()
            best = [min(best[0], coded - start), min(best[1], done - coded)]
        times = {"encode_ms": 1000 * best[0], "decode_ms": 1000 * best[1]}
        answer(sink, {"bytes": len(file.getvalue()), **times}, decoded.tobytes())


def answer(sink, line, data=b""):
    """Writes a line of JSON and bytes."""
    sink.write(json.dumps(line).encode() + b"\n" + data)
    sink.flush()


if __name__ == "__main__":
    main()
