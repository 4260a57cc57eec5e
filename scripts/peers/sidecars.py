"""Both sidecars between a client and a server, and the three ways in."""

import os
import subprocess
import time
from contextlib import ExitStack, contextmanager

from metrics import Metrics
from programs import ROOT, Program, ProgramFault

# Whom the system's rules redirect: not the user of the sidecars, whose own calls must get through.
CLIENT_UID = 65534


class Sidecars:
    """proxy-device in front of proxy-edge in front of a server, with an example's configuration.

    Where that has a point, `point` is the bundle that is taken for it. `settings` are proxy-device's.
    """

    def __init__(self, example, server, binaries, logs, point=None, settings=()):
        self.example, self.server, self.binaries, self.logs = example, server, binaries, logs
        self.point, self.settings = point, settings
        self.stack = ExitStack()

    def __enter__(self):
        with ExitStack() as stack:
            upstream = f'upstream=[{{ name = "default", url = "{self.server}" }}]'
            bundles, heads = [], []
            if self.point:
                bundles = [f'bundles=["onnx/codecs/photo", "{self.point}"]']
                heads = [f'codec.heads=["{self.point}"]']
            self.edge = self.start(stack, "proxy-edge", 'listen="127.0.0.1:0"', upstream, *bundles)
            self.device = self.start(
                stack,
                "proxy-device",
                'listen.reverse=["127.0.0.1:0"]',
                'listen.forward=["127.0.0.1:0"]',
                'listen.transparent=["127.0.0.1:0"]',
                f'edge.url="http://{self.edge.address("data")}"',
                f'direct="{self.server}"',
                f'destination=[{{ hosts = ["{self.server.removeprefix("http://")}"] }}]',
                *heads,
                *self.settings,
            )
            for one in (self.edge, self.device):
                one.answers(f"http://{one.address('admin')}/ready")
            self.linked()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, stack, name, *settings):
        command = [self.binaries / name, "--config", self.example / f"{name}.toml"]
        for setting in ('admin="127.0.0.1:0"', *settings):
            command += ["--set", setting]
        return stack.enter_context(Program(name, command, f"{self.logs}/{name}"))

    def linked(self):
        """Waits until the device, which is ready without an edge, uses the one that there is."""
        end = time.monotonic() + 60
        while not self.metrics().sum("sidecod_device_edge_up"):
            if time.monotonic() > end:
                raise ProgramFault("proxy-device has had no connection to proxy-edge for a minute")
            time.sleep(0.05)

    def metrics(self):
        return Metrics.read(self.device.address("admin"))

    def url(self):
        return f"http://{self.device.address('reverse')}"

    @contextmanager
    def way(self, name):
        """What a client needs to come in by a way: the server's URL, its environment, what to run it with."""
        if name == "reverse":
            yield self.url(), {}, []
        elif name == "forward":
            yield self.server, {"http_proxy": f"http://{self.device.address('forward')}"}, []
        else:
            port, to = (url.rpartition(":")[2] for url in (self.server, self.device.address("transparent")))
            self.redirect("--own-uid", os.geteuid(), "--uid", CLIENT_UID, "--ports", port, "--to", to, "--apply")
            try:
                # Another user, who may read what root may: the checkout may be root's alone.
                user = ["setpriv", f"--reuid={CLIENT_UID}", "--clear-groups"]
                yield self.server, {}, [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
            finally:
                self.redirect("--remove")

    def redirect(self, *arguments):
        command = [str(word) for word in (self.binaries / "proxy-device", "redirect", *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise ProgramFault(f"{' '.join(command)} failed: {done.stderr[-1000:]}")
