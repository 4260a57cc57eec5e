"""libtorch.py and wheels.py against a package index on loopback."""

import contextlib
import hashlib
import http.server
import io
import json
import os
import random
import re
import sys
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import libtorch  # noqa: E402
import wheels  # noqa: E402
from wheels import WheelError  # noqa: E402

NAME = "torch-1-py3-none-any.whl"
RANDOM = random.Random(1)
# The shape of the real wheel: much that nobody wants, before, between and after what is wanted.
MEMBERS = {
    "torch/bin/tool": 2 << 20,
    "torch/include/a.h": 1000,
    "torch/include/sub/b.h": 2000,
    "torch/lib/libtorch_cpu.so": 3 << 20,
    "torch/lib/libtorch_cuda.so": 5 << 20,
    "torch/share/cmake/x.cmake": 500,
    "torch/test/data": 2 << 20,
}
DATA = {name: RANDOM.randbytes(size) for name, size in MEMBERS.items()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def wheel_bytes(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in data.items():
            archive.writestr(name, content)
    return file.getvalue()


BODY = wheel_bytes(DATA)


def pins(data=DATA):
    trees = sorted(name.partition("/")[2] for name in data if name.startswith(("torch/include/", "torch/share/")))
    listing = "".join(f"{sha256(data['torch/' + name])}  {name}\n" for name in trees)
    library = "torch/lib/libtorch_cpu.so"
    return libtorch.Wheel(
        "torch",
        NAME,
        len(BODY),
        {library: (len(data[library]), sha256(data[library]))},
        ("torch/include/", "torch/share/"),
        (3500, sha256(listing.encode())),
    )


class Server(http.server.ThreadingHTTPServer):
    """A package index with one wheel."""

    daemon_threads = True

    def __init__(self, body, ranges=True, page="json", cut=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.ranges, self.page, self.cut = body, ranges, page, cut
        self.sent, self.asked, self.authorization = 0, [], None

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def index(self):
        with mock.patch.dict(os.environ, PIP_INDEX_URL=f"http://user:word@127.0.0.1:{self.server_port}/simple"):
            return wheels.Index(pip=("true",))


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.authorization = self.headers["Authorization"]
        if self.path == "/simple/torch/":
            return self.page()
        if self.path != "/files/" + NAME:
            return self.send_error(404)
        body, span = self.server.body, None
        self.server.asked.append(self.headers["Range"])
        if self.server.ranges and (wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")):
            span = int(wanted[1]), int(wanted[2]) + 1
        self.send_response(206 if span else 200)
        part = body[slice(*span)] if span else body
        if span:
            self.send_header("Content-Range", f"bytes {span[0]}-{span[1] - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.server.cut is not None and len(part) > self.server.cut:
            part, self.server.cut = part[: self.server.cut], self.server.cut and None
        self.server.sent += len(part)
        with contextlib.suppress(OSError):
            self.wfile.write(part)

    def page(self):
        files = [{"filename": "other.whl", "url": "/x"}, {"filename": NAME, "url": f"../../files/{NAME}#sha256=0"}]
        if self.server.page == "json":
            kind, body = "application/vnd.pypi.simple.v1+json", json.dumps({"files": files})
        else:
            links = "".join(f'<a href="{file["url"]}" data-requires-python="&gt;=3">{file["filename"]}</a><br>' for file in files)
            kind, body = "text/html; charset=utf-8", f"<!doctype html><html><body>{links}</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


class LayOut(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.layout = libtorch.Layout(Path(folder.name) / "libtorch")
        # Attempts follow each other at once.
        patch = mock.patch("time.sleep")
        patch.start()
        self.addCleanup(patch.stop)

    def run_it(self, server, wheel=None, local=None):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            libtorch.lay_out(self.layout, [wheel or pins()], local, server.index)
        return said.getvalue()

    def is_complete(self):
        root = self.layout.root
        for name in ("lib/libtorch_cpu.so", "include/a.h", "include/sub/b.h", "share/cmake/x.cmake"):
            self.assertEqual((root / name).read_bytes(), DATA["torch/" + name])
        self.assertEqual(os.readlink(root / "lib/libtorch.so"), "libtorch_cpu.so")
        names = {path.name for path in root.iterdir()}
        self.assertEqual(names, {"lib", "include", "share", libtorch.STAMP})

    def test_only_what_is_wanted_is_fetched_and_the_second_time_nothing(self):
        with Server(BODY) as server:
            self.run_it(server)
            self.is_complete()
            self.assertLess(server.sent, 3.3e6)
            server.sent = 0
            self.assertEqual(self.run_it(server), "")
            self.assertEqual(server.sent, 0)
            self.assertEqual(server.authorization, "Basic dXNlcjp3b3Jk")

    def test_the_index_may_speak_html(self):
        with Server(BODY, page="html") as server:
            self.run_it(server)
        self.is_complete()

    def test_a_cut_connection_is_taken_up_where_it_broke(self):
        with Server(BODY, cut=1_000_000) as server:
            self.run_it(server)
            self.is_complete()
            self.assertLess(server.sent, 3.3e6)

    def test_the_next_run_goes_on_where_the_last_one_stopped(self):
        with Server(BODY) as server:
            fetch, stop = wheels.Remote._append, [False]

            def append(remote, path, start, end):
                if end - start > 1_000_000:
                    fetch(remote, path, start, start + 1_000_000)
                    stop[0] = True
                    raise KeyboardInterrupt
                return fetch(remote, path, start, end)

            with mock.patch.object(wheels.Remote, "_append", append), self.assertRaises(KeyboardInterrupt):
                self.run_it(server)
            self.assertTrue(stop[0])
            sent = server.sent
            self.assertGreater(sent, 1_000_000)
            self.run_it(server)
            self.is_complete()
            self.assertLess(server.sent, 3.3e6)

    def test_a_server_without_ranges_sends_the_whole_wheel_once(self):
        with Server(BODY, ranges=False, cut=1_000_000) as server:
            self.run_it(server)
            self.is_complete()
            self.assertEqual(server.sent, len(BODY) + 1_000_000)

    def test_a_dead_server_is_an_error_that_says_what_to_do(self):
        with Server(BODY, cut=0) as server, self.assertRaisesRegex(WheelError, "run this again to go on"):
            self.run_it(server)
        with self.assertRaisesRegex(WheelError, "cannot read http://127.0.0.1:"):
            self.run_it(server)

    def test_another_library_under_the_same_name_is_refused(self):
        other = {**DATA, "torch/lib/libtorch_cpu.so": RANDOM.randbytes(3 << 20)}
        with Server(BODY) as server:
            with self.assertRaisesRegex(WheelError, r"libtorch_cpu\.so of .* is damaged or another file .*expected"):
                self.run_it(server, pins(other))
            self.assertFalse((self.layout.root / libtorch.STAMP).exists())
            self.assertFalse((self.layout.root / "lib/libtorch_cpu.so").exists())
            self.run_it(server)
        self.is_complete()

    def test_damaged_bytes_are_fetched_again(self):
        damaged = bytearray(BODY)
        damaged[BODY.index(DATA["torch/lib/libtorch_cpu.so"][1000:1050])] ^= 1
        with Server(bytes(damaged)) as server:
            with self.assertRaisesRegex(WheelError, "damaged"):
                self.run_it(server)
            server.body = BODY
            self.run_it(server)
        self.is_complete()

    def test_a_damaged_directory_is_refused(self):
        damaged = BODY[:-60] + bytes(60)
        with Server(damaged) as server, self.assertRaisesRegex(WheelError, "the directory of .* is damaged"):
            self.run_it(server)

    def test_other_headers_are_refused(self):
        with Server(BODY) as server:
            with self.assertRaisesRegex(WheelError, "torch/include/ and torch/share/"):
                self.run_it(server, pins({**DATA, "torch/include/a.h": b"x"}))

    def test_a_wheel_of_another_size_is_refused(self):
        for ranges in (True, False):
            with Server(BODY + b"\0", ranges=ranges) as server, self.assertRaises(WheelError):
                self.run_it(server)

    def test_a_missing_or_changed_library_is_laid_out_again(self):
        with Server(BODY) as server:
            self.run_it(server)
            (self.layout.root / "lib/libtorch_cpu.so").unlink()
            self.run_it(server)
            self.is_complete()

    def test_a_complete_folder_without_a_stamp_is_verified_and_stamped(self):
        with Server(BODY) as server:
            self.run_it(server)
            (self.layout.root / libtorch.STAMP).unlink()
            server.sent = 0
            self.run_it(server)
            self.assertEqual(server.sent, 0)
        self.is_complete()

    def test_wheels_at_hand_need_no_network(self):
        local = self.layout.root.parent / "wheels"
        local.mkdir()
        (local / NAME).write_bytes(BODY)
        with Server(BODY) as server:
            self.run_it(server, local=local)
            self.assertEqual(server.asked, [])
        self.is_complete()

    def test_too_little_space_is_said_before_the_download(self):
        full = mock.Mock(free=1 << 20)
        with Server(BODY) as server, mock.patch("shutil.disk_usage", return_value=full):
            with self.assertRaisesRegex(WheelError, r"needs 23 MB of free space in .*, there are 1 MB"):
                self.run_it(server)
            self.assertLess(server.sent, 1e5)

    def test_an_unlisted_wheel_is_said(self):
        with Server(BODY) as server, self.assertRaisesRegex(WheelError, "does not list torch-2"):
            self.run_it(server, pins()._replace(filename="torch-2.whl"))


class Choice(unittest.TestCase):
    def main(self, **environment):
        said = io.StringIO()
        kept = {name: value for name, value in os.environ.items() if name not in ("LIBTORCH", "SIDECOD_LIBTORCH", "VIRTUAL_ENV")}
        with mock.patch.dict(os.environ, {**kept, **environment}, clear=True), mock.patch("sys.argv", ["libtorch.py"]):
            with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as caught:
                libtorch.main()
        return str(caught.exception)

    def test_another_machine_is_told_what_it_can_do(self):
        with mock.patch("platform.machine", return_value="aarch64"):
            self.assertIn("SIDECOD_LIBTORCH=pytorch", self.main())

    def test_an_unknown_choice_is_refused(self):
        self.assertIn("leave it out", self.main(SIDECOD_LIBTORCH="cuda"))

    def test_pytorch_of_another_version_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder) / "python3"
            for script, answer in (("echo 2.9.1+cpu none", "has torch 2.9.1"), ("exit 1", "has no torch")):
                python.write_text(f"#!/bin/sh\n{script}\n")
                python.chmod(0o755)
                path = f"{folder}:{os.environ['PATH']}"
                self.assertIn(answer, self.main(SIDECOD_LIBTORCH="pytorch", PATH=path))


if __name__ == "__main__":
    unittest.main()
