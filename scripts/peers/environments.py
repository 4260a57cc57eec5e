"""Virtual environments of the peers, kept under .venvs/ and made again when their pins change."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".venvs"
VERSIONS = ((3, 11), (3, 12))


class EnvironmentFault(Exception):
    """An environment cannot be made, and what to do."""


def base():
    """A Python that all the pinned packages know, and its version: the system's where it will do.

    Triton loads the shared library of the Python that runs it, which only the system's surely has.
    """
    for python in ("/usr/bin/python3", sys.executable):
        show = [python, "-c", "import sys; print(*sys.version_info[:3])"]
        try:
            version = tuple(map(int, subprocess.run(show, capture_output=True, check=True).stdout.split()))
        except OSError:
            continue
        if version[:2] in VERSIONS:
            return python, version
    raise EnvironmentFault("the peers need Python 3.11 or 3.12, as /usr/bin/python3 or to run this")


def has_library():
    """Whether the shared library of that Python is there."""
    python, version = base()
    name = f"libpython{version[0]}.{version[1]}"
    load = [python, "-c", f"import ctypes; ctypes.CDLL('{name}.so.1.0')"]
    run(load, f"Triton needs that library: apt-get install {name}")


def ready(peer):
    """The bin folder of a peer's environment, with exactly what its requirements.txt names."""
    pins = ROOT / "examples" / peer / "requirements.txt"
    folder = FOLDER / peer
    python, version = base()
    wanted = hashlib.sha256(pins.read_bytes() + str(version).encode()).hexdigest()
    stamp = folder / "ready"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "bin"
    print(f"peers: installing {peer} into {folder.relative_to(ROOT)} ...", flush=True)
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    # Without pip, whose part of Python Debian packs on its own; the pip of this Python installs.
    run([python, "-m", "venv", "--without-pip", folder], "its module venv is part of Python")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--no-compile", "--only-binary", ":all:", "-r", pins]
    run(pip, "pip 22.3 or later is needed (python3-pip)")
    stamp.write_text(wanted)
    print(f"peers: installed {peer} in {time.monotonic() - started:.0f} s", flush=True)
    return folder / "bin"


def run(command, hint, **how):
    """What a command printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **how)
    if done.returncode:
        line = " ".join(map(str, command))
        raise EnvironmentFault(f"{line} failed; {hint}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
