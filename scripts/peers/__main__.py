"""Real model servers and real clients, directly and through both sidecars.

For each peer: its pinned packages are installed into .venvs/, the server and both sidecars are started on
free ports, and the client sends photos directly and through proxy-device. Both answers must agree, and the
device's own metrics must say that the request crossed as a code, and smaller than it was.

All of it runs in a network namespace of its own, so that the rules of the transparent way redirect nobody
else: this wants root.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import environments
import points
from answers import Answer, compare
from cases import PEERS, photo_path
from metrics import Metrics
from programs import ROOT, Program, ProgramFault, free_ports
from sidecars import Sidecars
from table import markdown, plain

# For one run of a client: the codec decodes on the CPU, perhaps of a loaded machine.
CLIENT_S = 180


@dataclass(frozen=True)
class Result:
    """One photo in one request."""

    peer: object
    request: object
    photo: str
    body: int
    sent: int
    good: bool


def main():
    options = read_options()
    chosen = [peer for peer in PEERS if not options.peers or peer.folder in options.peers]
    try:
        if any(peer.libpython for peer in chosen):
            environments.has_library()
        folders = [environments.ready(peer.example) if peer.packages else None for peer in chosen]
        if not options.inside:
            for peer in (peer for peer in chosen if peer.point):
                points.make(f"examples/{peer.folder}/interface.toml", os.path.dirname(peer.point))
        if options.install:
            return 0
        if not options.inside:
            inside()
        results = []
        for peer, folder in zip(chosen, folders):
            results += run(peer, folder, options.bin.resolve())
    except (environments.EnvironmentFault, ProgramFault) as fault:
        print(f"peers: {fault}", file=sys.stderr)
        return 1
    print()
    print(plain(results))
    if options.table:
        print()
        print(markdown(results))
    bad = sum(not result.good for result in results)
    print(f"{len(results) - bad} passed, {bad} failed")
    return 1 if bad or not results else 0


def read_options():
    parser = argparse.ArgumentParser(prog="scripts/peers", description=__doc__.splitlines()[0])
    names = [peer.folder for peer in PEERS]
    parser.add_argument("peers", nargs="*", help=f"which of {', '.join(names)}; all where none is named")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", help="folder of the programs")
    parser.add_argument("--table", action="store_true", help="print the table for docs/protocols.md as well")
    parser.add_argument("--install", action="store_true", help="only make the environments and the points")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.peers) - set(names)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    for program in () if options.install else ("proxy-device", "proxy-edge", "model-server"):
        if not (options.bin / program).exists():
            parser.error(f"no {options.bin / program}: run `make build` first")
    return options


def inside():
    """Starts this again in a network namespace that has a loopback interface and nothing else."""
    if os.geteuid() != 0:
        raise ProgramFault("the transparent way needs root: run this with sudo")
    again = [sys.executable, os.path.dirname(os.path.abspath(__file__)), "--inside", *sys.argv[1:]]
    up = 'ip link set lo up && exec "$@"'
    sys.stdout.flush()
    try:
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", up, "sh", *again])
    except OSError as error:
        raise ProgramFault(f"unshare (util-linux) cannot be started: {error}") from error


def run(peer, folder, binaries):
    """All requests of one peer."""
    port = free_ports(peer.ports)
    url = f"http://127.0.0.1:{port}"
    command, environment = peer.start(folder, binaries, port)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sidecod-peers-") as logs:
        with Program(peer.server, command, f"{logs}/server", environment) as server:
            server.answers(url + peer.health)
            called = f"http://127.0.0.1:{port + peer.called}"
            point = points.without_tail(ROOT / peer.point, Path(logs) / "point") if peer.point else None
            example = ROOT / "examples" / peer.folder
            with Sidecars(example, called, binaries, logs, point, peer.settings) as sidecars:
                # Opens the connection of the link, whose cost belongs to no request; and crosses as it is.
                if called == url:
                    sidecars.device.answers(sidecars.url() + peer.health)
                print(f"peers: {peer.server} is up after {time.monotonic() - started:.0f} s", flush=True)
                results = [
                    ask(peer, request, photo, folder, called, sidecars)
                    for request in peer.requests
                    for photo in request.photos
                ]
                if not all(result.good for result in results):
                    print(sidecars.device.fault("did not offload all of it"), file=sys.stderr)
    return results


def ask(peer, request, photo, folder, server, sidecars):
    """One photo, directly and through the sidecars."""
    path = photo_path(ROOT, photo)
    with models_that_run(request, server) as ran_directly:
        direct = client(request, folder, path, server, {}, [])
    with sidecars.way(request.way) as (url, environment, prefix), models_that_run(request, server) as ran:
        before = sidecars.metrics()
        offloaded = client(request, folder, path, url, environment, prefix)
        added = sidecars.metrics() - before
    body = int(added.sum("sidecod_device_app_bytes_total"))
    sent = int(added.sum("sidecod_device_link_bytes_total", direction="sent"))
    agree, said = compare(direct, offloaded, peer.is_text)
    crossed = added.outcomes()
    good = agree and crossed == {request.outcome: 1} and sent < body
    if crossed != {request.outcome: 1}:
        said += f"; crossed as {crossed}, not as one {request.outcome}"
    if request.models and [ran_directly, ran] != [{model: 1} for model in request.models]:
        good = False
        said += f"; the server ran {ran_directly} directly, {ran} through the sidecars"
    word = "ok  " if good else "FAIL"
    way = "" if request.way == "reverse" else f", {request.way}"
    print(f"  {word} {request.what}{way}, {path.name}: {body} B, {sent} B on the link; {said}", flush=True)
    return Result(peer, request, path.name, body, sent, good)


@contextmanager
def models_that_run(request, server):
    """Which of the server's models run meanwhile, by its own metrics: name to count."""
    ran = {}
    if not request.models:
        yield ran
        return
    before = Metrics.read(server.removeprefix("http://"))
    yield ran
    ran |= (Metrics.read(server.removeprefix("http://")) - before).models()


def client(request, folder, photo, url, environment, prefix):
    """Runs the client program as its user would."""
    script, *arguments = request.client
    python = folder / "python" if folder else sys.executable
    command = [*prefix, python, ROOT / "examples" / script, *arguments, url, photo]
    # A proxy or an exception from one that the machine sets would be another way in.
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=CLIENT_S,
            env={**clean, **environment},
        )
    except subprocess.TimeoutExpired:
        raise ProgramFault(f"{script} had no answer from {url} within {CLIENT_S} s") from None
    if done.returncode:
        raise ProgramFault(f"{script} failed with {url}:\n{done.stderr[-2000:]}")
    return Answer.read(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
