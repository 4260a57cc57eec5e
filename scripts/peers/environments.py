"""Virtual environments of the peers, kept under .venvs/ and made again when their pins change."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".venvs"
# Triton brings an interpreter's bridge that loads the system's libpython: so the system's Python first.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


class EnvironmentFault(Exception):
    """An environment cannot be made, and what to do."""


def ready(peer):
    """The bin folder of a peer's environment, with exactly what its requirements.txt names."""
    pins = ROOT / "examples" / peer / "requirements.txt"
    folder = FOLDER / peer
    version = subprocess.run([PYTHON, "--version"], capture_output=True, check=True).stdout
    wanted = hashlib.sha256(pins.read_bytes() + version).hexdigest()
    stamp = folder / "ready"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "bin"
    print(f"peers: installing {peer} into {folder.relative_to(ROOT)} ...", flush=True)
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    # Without pip, whose part of Python Debian packs on its own; the pip of this Python installs.
    run([PYTHON, "-m", "venv", "--without-pip", folder], "its module venv is part of Python")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--no-compile", "--only-binary", ":all:"]
    pip += ["-r", pins]
    run(pip, "pip 22.3 or later is needed (python3-pip), and Python 3.11 or 3.12")
    stamp.write_text(wanted)
    print(f"peers: installed {peer} in {time.monotonic() - started:.0f} s", flush=True)
    return folder / "bin"


def run(command, hint):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        line = " ".join(map(str, command))
        raise EnvironmentFault(f"{line} failed; {hint}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
