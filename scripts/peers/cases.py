"""The peers: which real server, which real client, which requests."""

from dataclasses import dataclass, field
from pathlib import Path

# In examples/photos, or by their place seen from there.
PHOTOS = ("polar-bear.jpg", "goldfish.jpg", "komodo-dragon-1080p.jpg")
LABEL = "../rapidocr/label.jpg"
SOUNDS = ("../speech/young-man.wav", "../speech/amiable-woman.wav")


@dataclass(frozen=True)
class Request:
    """One way in which a client sends a photo, or a sound."""

    preset: str
    what: str
    client: tuple
    cut_out: str
    photos: tuple = PHOTOS
    by: str = ""  # the client, where it is not the peer's
    # How the client finds proxy-device: by its URL (`reverse`), by HTTP_PROXY (`forward`), or by rules of
    # the system that redirect its connections (`transparent`).
    way: str = "reverse"
    # Which of the server's models answers directly, and which through the sidecars, if the server's metrics
    # are to say so.
    models: tuple = ()
    # What the device's metrics call the way in which it crosses.
    outcome: str = "code"


@dataclass(frozen=True)
class Peer:
    """A model server and what its clients send. `start` fills in `{port}` and the like."""

    folder: str
    server: str
    client: str
    command: tuple
    health: str
    requests: tuple
    # The port that the clients call, counted from the first, where that is not the one of `health`: one that
    # speaks gRPC.
    called: int = 0
    environment: dict = field(default_factory=dict)
    ports: int = 1
    is_text: bool = False
    # What it runs in: pinned packages of its folder, or nothing but Python.
    packages: bool = True
    libpython: bool = False
    # A bundle of features whose tail the server has.
    point: str = ""
    # Of proxy-device, in place of what the example's file says.
    settings: tuple = ()

    @property
    def example(self):
        """The example whose packages it runs in."""
        return self.folder.partition("/")[0]

    def start(self, bin_folder, sidecars, port):
        """The command and the environment that start the server on a port (and those after it)."""
        fill = {"bin": bin_folder, "sidecars": sidecars, "port": port, "second": port + 1, "third": port + 2}
        command = [word.format(**fill) for word in self.command]
        return command, {name: value.format(**fill) for name, value in self.environment.items()}


TRITON_CLIENT = "tritonclient 2.73.0"
REQUESTS = "requests 2.34.2"
BASE64 = "the base64 text"
POINT = "target/kserve/block4"


def tensor(kind, *options):
    return ("kserve/client.py", "--type", kind, *options)


def kserve(folder, client, requests, *options, **rest):
    """A peer with examples/kserve/server.py; `options` are the server's."""
    return Peer(
        folder=folder,
        server="kserve 0.21.0",
        client=client,
        command=(
            "{bin}/python",
            "examples/kserve/server.py",
            "--http_port",
            "{port}",
            "--grpc_port",
            "{second}",
            *options,
        ),
        health="/v2/health/ready",
        ports=2,
        requests=requests,
        **rest,
    )


def triton(folder, *requests, **rest):
    """A peer with examples/triton/server.py."""
    return Peer(
        folder=folder,
        libpython=True,
        server="Triton 2.51.0 (nvidia-pytriton 0.7.0)",
        client=TRITON_CLIENT,
        command=("{bin}/python", "examples/triton/server.py", "--port", "{port}"),
        health="/v2/models/file/ready",  # the last to load
        ports=3,
        requests=requests,
        **rest,
    )


def mlserver(folder, client, *requests, **rest):
    """A peer with the model of examples/mlserver."""
    return Peer(
        folder=folder,
        server="mlserver 1.7.1",
        client=client,
        command=("{bin}/mlserver", "start", "examples/mlserver"),
        environment={
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{second}",
            "MLSERVER_METRICS_PORT": "{third}",
        },
        health="/v2/health/ready",
        ports=3,
        requests=requests,
        **rest,
    )


def speech(*requests, **rest):
    """A peer with examples/speech/server.py."""
    return Peer(
        folder="speech",
        server="litserve 0.2.19, pocketsphinx 5.1.1",
        client="openai 3.54.0",
        command=("{bin}/python", "examples/speech/server.py", "--port", "{port}"),
        health="/health",
        is_text=True,
        requests=requests,
        **rest,
    )


PEERS = (
    Peer(
        folder="demo",
        server="examples/model-server",
        client="Python's urllib",
        command=("{sidecars}/model-server", "--listen", "127.0.0.1:{port}"),
        health="/health",
        packages=False,
        requests=(Request("auto", "JPEG as the body", ("demo/client.py",), "the body"),),
    ),
    kserve(
        "kserve",
        TRITON_CLIENT,
        (
            Request("oip", "FP32 tensor, binary", tensor("FP32"), "the tensor"),
            Request("oip", "FP16 tensor, binary", tensor("FP16"), "the tensor"),
            Request("oip", "UINT8 tensor, binary", tensor("UINT8"), "the tensor"),
            Request("tf-serving", "JPEG as base64 in JSON (v1)", ("kserve/client_v1.py",), BASE64, by=REQUESTS),
            Request("oip", "FP32 tensor, binary", tensor("FP32"), "the tensor", PHOTOS[:1], way="transparent"),
            Request(
                "tf-serving",
                "JPEG as base64 in JSON (v1)",
                ("kserve/client_v1.py",),
                BASE64,
                PHOTOS[:1],
                by=REQUESTS,
                way="forward",
            ),
        ),
    ),
    kserve(
        "kserve",
        REQUESTS,
        (
            Request(
                "tf-serving",
                "JPEG as base64 in JSON (v1), written anew as AVIF",
                ("kserve/client_v1.py",),
                BASE64,
                outcome="classical",
            ),
        ),
        settings=(
            'route=[{ name = "v1", path = "/v1/models/*", shape = "tf-serving", options = ["avif:60"],'
            " timeout_ms = 120000 }]",
        ),
    ),
    kserve(
        "kserve/tail",
        REQUESTS,
        (
            Request(
                "tf-serving",
                "JPEG as base64 in JSON (v1), as block4:q1, tail in the server",
                ("kserve/client_v1.py", "--json"),
                BASE64,
                models=("file", "tail"),
            ),
        ),
        "--tail",
        f"{POINT}/tail.onnx",
        point=POINT,
    ),
    kserve(
        "kserve/grpc",
        TRITON_CLIENT,
        (
            Request("oip", "FP32 tensor, gRPC", tensor("FP32", "--grpc"), "the tensor"),
            Request("oip", "FP16 tensor, gRPC, gzip", tensor("FP16", "--grpc", "--compress", "gzip"), "the tensor"),
            Request("oip", "UINT8 tensor, gRPC", tensor("UINT8", "--grpc"), "the tensor"),
        ),
        called=1,
    ),
    triton(
        "triton",
        Request("oip", "JPEG in a BYTES tensor, binary", tensor("BYTES"), "the file in its tensor"),
        Request("oip", "FP32 tensor, binary", tensor("FP32"), "the tensor"),
        Request("oip", "FP32 tensor, binary, gzip", tensor("FP32", "--compress", "gzip"), "the tensor"),
        Request("oip", "UINT8 tensor, binary, deflate", tensor("UINT8", "--compress", "deflate"), "the tensor"),
    ),
    triton(
        "triton/grpc",
        Request("oip", "JPEG in a BYTES tensor, gRPC", tensor("BYTES", "--grpc"), "the file in its tensor"),
        Request("oip", "FP32 tensor, gRPC", tensor("FP32", "--grpc"), "the tensor"),
        Request("oip", "FP16 tensor, gRPC, gzip", tensor("FP16", "--grpc", "--compress", "gzip"), "the tensor"),
        Request("oip", "UINT8 tensor, gRPC", tensor("UINT8", "--grpc"), "the tensor"),
        Request("oip", "FP32 tensor, gRPC", tensor("FP32", "--grpc"), "the tensor", PHOTOS[:1], way="transparent"),
        called=1,
    ),
    mlserver(
        "mlserver",
        f"mlserver 1.7.1's types, {REQUESTS}",
        Request("oip", "FP32 tensor as numbers in JSON", ("mlserver/client.py",), "the numbers"),
        Request("oip", "the same in nested lists", ("mlserver/client.py", "--nested"), "the numbers"),
        Request("oip", "JPEG as base64 in a BYTES tensor", ("mlserver/client.py", "--file"), BASE64),
    ),
    mlserver(
        "mlserver/grpc",
        "mlserver 1.7.1's types and stub, grpcio 1.85.1",
        Request("oip", "FP32 tensor's contents, gRPC", ("mlserver/client.py", "--grpc"), "the numbers"),
        called=1,
    ),
    Peer(
        folder="litserve",
        server="litserve 0.2.19",
        client=REQUESTS,
        command=("{bin}/python", "examples/litserve/server.py", "--port", "{port}"),
        health="/health",
        requests=(
            Request("auto", "JPEG in a form", ("litserve/client.py",), "the part's content"),
            Request("openai", "data: URI in a chat", ("litserve/client_openai.py",), BASE64, by="openai 3.54.0"),
            Request("ollama", "base64 in a chat", ("litserve/client_ollama.py",), BASE64, by="ollama 0.6.3"),
            Request(
                "hugging-face",
                "base64 in JSON",
                ("litserve/client_huggingface.py",),
                BASE64,
                by="huggingface_hub 2.4.0",
            ),
            Request("roboflow", "base64 in JSON", ("litserve/client_roboflow.py",), BASE64),
        ),
    ),
    speech(
        Request("auto", "WAV in a form, as FLAC", ("speech/client.py",), "the part's content", SOUNDS),
        Request("openai", "WAV in base64 in a chat, as FLAC", ("speech/client.py", "--chat"), BASE64, SOUNDS),
    ),
    speech(
        # The other one, which it gets wrong anyway, PocketSphinx hears differently.
        Request("auto", "WAV in a form, as Opus of 16 kbit/s", ("speech/client.py",), "the part's content", SOUNDS[1:]),
        settings=(
            'route=[{ name = "t", path = "/v1/audio/transcriptions", sound = "opus:16", timeout_ms = 120000 }]',
        ),
    ),
    Peer(
        folder="rapidocr",
        server="rapidocr-api 0.2.0",
        client=REQUESTS,
        command=("{bin}/rapidocr_api", "-ip", "127.0.0.1", "-p", "{port}"),
        health="/",
        is_text=True,
        requests=(
            Request("auto", "JPEG in a form", ("rapidocr/client.py",), "the part's content", (LABEL,)),
        ),
    ),
)


def photo_path(root, name):
    return (Path(root) / "examples/photos" / name).resolve()
