"""Real model servers and real clients, directly and through both sidecars.

For each peer: its pinned packages are installed into .venvs/, the server and both sidecars are started on
free ports, and the client sends photos directly and through proxy-device. Both answers must agree, and the
device's own metrics must say that the request crossed as a code, and smaller than it was.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import environments
from answers import Answer, compare
from cases import PEERS, photo_path
from metrics import Metrics
from programs import ROOT, Program, ProgramFault, free_ports
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
    said: str


def main():
    parser = argparse.ArgumentParser(prog="scripts/peers", description=__doc__.splitlines()[0])
    names = [peer.folder for peer in PEERS]
    parser.add_argument("peers", nargs="*", help=f"which of {', '.join(names)}; all where none is named")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", help="folder of the sidecars")
    parser.add_argument("--table", action="store_true", help="print the table of docs/protocols.md as well")
    parser.add_argument("--install", action="store_true", help="only make the environments")
    options = parser.parse_args()
    unknown = set(options.peers) - set(names)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    for program in () if options.install else ("proxy-device", "proxy-edge"):
        if not (options.bin / program).exists():
            parser.error(f"no {options.bin / program}: run `make build` first")

    chosen = [peer for peer in PEERS if not options.peers or peer.folder in options.peers]
    try:
        folders = [environments.ready(peer.folder) for peer in chosen]
        if options.install:
            return 0
        results = []
        for peer, folder in zip(chosen, folders):
            results += run(peer, folder, options.bin)
    except (environments.EnvironmentFault, ProgramFault) as fault:
        print(f"peers: {fault}", file=sys.stderr)
        return 1
    print()
    print(plain(results))
    if options.table:
        print(markdown(results))
    bad = sum(not result.good for result in results)
    print(f"{len(results) - bad} passed, {bad} failed")
    return 1 if bad or not results else 0


def run(peer, folder, binaries):
    """All requests of one peer."""
    port = free_ports(peer.ports)
    command, environment = peer.start(folder, port)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sidecod-peers-") as logs:
        with Program(peer.server, command, f"{logs}/server", environment) as server:
            server.answers(f"http://127.0.0.1:{port}{peer.health}")
            with sidecars(peer, f"http://127.0.0.1:{port}", binaries, logs) as device:
                # Opens the connection of the link, whose cost belongs to no request; and crosses as it is.
                device.device.answers(device.url() + peer.health)
                print(f"peers: {peer.server} is up after {time.monotonic() - started:.0f} s", flush=True)
                results = list(ask_all(peer, folder, f"http://127.0.0.1:{port}", device))
                for result in results:
                    if not result.good:
                        print(device.fault("log"), file=sys.stderr)
                        break
    return results


def sidecars(peer, server, binaries, logs):
    """proxy-device, in front of proxy-edge, in front of a server."""
    return Sidecars(ROOT / "examples" / peer.folder, server, binaries, logs)


class Sidecars:
    """Both sidecars with an example's configuration, on free ports."""

    def __init__(self, example, server, binaries, logs):
        listen = ["--set", 'listen="127.0.0.1:0"', "--set", 'admin="127.0.0.1:0"']
        self.server, self.listen = server, listen
        self.example, self.binaries, self.logs = example, binaries, logs

    def __enter__(self):
        upstream = f'upstream=[{{ name = "default", url = "{self.server}" }}]'
        self.edge = self.start("proxy-edge", "--set", upstream)
        try:
            edge = f'edge.url="http://{self.edge.address("data")}"'
            self.device = self.start("proxy-device", "--set", edge, "--set", f'direct="{self.server}"')
            try:
                for one in (self.edge, self.device):
                    one.answers(f"http://{one.address('admin')}/ready")
            except BaseException:
                self.device.stop()
                raise
        except BaseException:
            self.edge.stop()
            raise
        return self

    def __exit__(self, *_):
        self.device.stop()
        self.edge.stop()

    def start(self, name, *settings):
        config = self.example / f"{name}.toml"
        command = [self.binaries / name, "--config", config, *self.listen, *settings]
        return Program(name, command, f"{self.logs}/{name}")

    def url(self):
        return f"http://{self.device.address('data')}"

    def metrics(self):
        return Metrics.read(self.device.address("admin"))

    def fault(self, what):
        return self.device.fault(what)


def ask_all(peer, folder, server, device):
    """Every request with every photo, directly and through the sidecars."""
    for request in peer.requests:
        for photo in request.photos:
            path = photo_path(ROOT, photo)
            direct = client(request, folder, server, path)
            before = device.metrics()
            offloaded = client(request, folder, device.url(), path)
            added = device.metrics() - before
            yield judge(peer, request, photo, direct, offloaded, added)


def judge(peer, request, photo, direct, offloaded, added):
    body = int(added.sum("sidecod_device_app_bytes_total"))
    sent = int(added.sum("sidecod_device_link_bytes_total", direction="sent"))
    agree, said = compare(direct, offloaded, peer.is_text)
    crossed = added.outcomes()
    good = agree and crossed == {"code": 1} and sent < body
    if crossed != {"code": 1}:
        said += f"; crossed as {crossed}, not as one code"
    word = "ok  " if good else "FAIL"
    print(f"  {word} {request.what}, {photo}: {body} B, {sent} B on the link; {said}", flush=True)
    return Result(peer, request, photo, body, sent, good, said)


def client(request, folder, url, photo):
    """Runs the client program as a user would."""
    script, *arguments = request.client
    command = [folder / "python", ROOT / "examples" / script, *arguments, url, photo]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=CLIENT_S)
    except subprocess.TimeoutExpired:
        raise ProgramFault(f"{script} had no answer from {url} within {CLIENT_S} s") from None
    if done.returncode:
        raise ProgramFault(f"{script} failed with {url}:\n{done.stderr[-2000:]}")
    return Answer.read(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
