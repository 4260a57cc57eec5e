"""Programs that are started on free ports of this machine, waited for, and stopped again."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# A loaded machine with two cores takes its time.
START_S = 180
STOP_S = 20


class ProgramFault(Exception):
    """A program did not do what it should."""


def free_ports(count):
    """Ports in a row that nobody listens on."""
    for first in range(20000 + os.getpid() % 10000, 60000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise ProgramFault("no free ports between 20000 and 60000")


class Program:
    """A running program in a process group of its own. Leaving its `with` block stops all of the group."""

    def __init__(self, name, command, log, environment=None):
        self.name = name
        self.log = Path(log)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def fault(self, what):
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return ProgramFault(f"{self.name} {what}. Its last lines:\n" + "\n".join(line[:300] for line in lines))

    def waits_for(self, found, what):
        """Asks `found` until it gives something, and gives that."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            result = found()
            if result:
                return result
            if self.process.poll() is not None:
                raise self.fault(f"ended with {self.process.returncode}")
            time.sleep(0.05)
        raise self.fault(f"did not {what} within {START_S} s")

    def answers(self, url):
        """Waits until the URL answers 200."""

        def asked():
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return answer.status == 200
            except (urllib.error.URLError, OSError):
                return False

        self.waits_for(asked, f"answer {url}")

    def address(self, role):
        """Where a sidecar says that it listens: `data` or `admin`."""

        def said():
            listening = re.search(rf"^listening .*\b{role}=(\S+)", self.log.read_text(errors="replace"), re.M)
            return listening and listening[1]

        return self.waits_for(said, "say where it listens")

    def stop(self):
        """Ends the program and what it started, at the latest after STOP_S."""
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self.process.wait()

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass
