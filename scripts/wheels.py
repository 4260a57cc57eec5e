"""Members of a wheel, fetched from a package index without the rest of the wheel.

A wheel is a zip: its directory stands at its end, and a server that knows HTTP Range requests (RFC
9110, section 14) gives out any part of it. What is fetched is kept in part files, so that the next
run goes on where the last one stopped. A server without ranges costs the whole wheel.
"""

import base64
import errno
import html.parser
import http.client
import io
import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

TIMEOUT = 60
ATTEMPTS = 5
CHUNK = 1 << 20
# The directory's end is looked for here first; it is 22 bytes in a zip without a comment.
TAIL = 1 << 16
# A hole in what is wanted that is cheaper to fetch than to skip.
HOLE = 1 << 20


class WheelError(Exception):
    """Something that the person at the terminal can act on."""


class Index:
    """The package index that pip is configured for, over HTTP."""

    def __init__(self, pip=(sys.executable, "-m", "pip")):
        self._pip = pip
        settings = self._settings()
        url = os.environ.get("PIP_INDEX_URL") or settings.get("index-url") or self._default()
        parts = urllib.parse.urlsplit(url)
        self._login = None
        if parts.username:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._login = (parts.hostname, "Basic " + base64.b64encode(login.encode()).decode())
            parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        self.url = urllib.parse.urlunsplit(parts).rstrip("/") + "/"
        context = ssl.create_default_context()
        if authorities := os.environ.get("PIP_CERT") or settings.get("cert"):
            context.load_verify_locations(authorities)
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def _run(self, arguments):
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def _settings(self):
        """What `pip config list` says: `global.index-url='...'`, one line each."""
        found = re.findall(r"^[\w:.]*\.([\w-]+)='(.*)'$", self._run([*self._pip, "config", "list"]), re.M)
        return dict(found)

    def _default(self):
        ask = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        if url := self._run([self._pip[0], "-c", ask]).strip():
            return url
        raise WheelError(f"{self._pip[0]} has no pip to ask for the package index: install pip, or set PIP_INDEX_URL")

    def open(self, url, headers):
        request = urllib.request.Request(url, headers=headers)
        if self._login and request.host.partition(":")[0] == self._login[0]:
            request.add_header("Authorization", self._login[1])
        return self._opener.open(request, timeout=TIMEOUT)

    def find(self, project, filename):
        """URL of a file of a project (PEP 503 or PEP 691 page)."""
        page = urllib.parse.urljoin(self.url, project + "/")
        kinds = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.open(page, {"Accept": kinds}) as answer:
                    kind, body, page = answer.headers.get_content_type(), answer.read(), answer.geturl()
                break
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS or not passing(error):
                    raise WheelError(f"cannot read {page}: {reason(error)}") from error
                time.sleep(attempt)
        try:
            if kind.endswith("json"):
                links = [(file["filename"], file["url"]) for file in json.loads(body)["files"]]
            else:
                links = Links(body.decode()).found
        except (ValueError, KeyError, TypeError) as error:
            raise WheelError(f"{page} is not a page of a package index: {error!r}") from error
        for name, url in links:
            if name == filename:
                return urllib.parse.urljoin(page, url.partition("#")[0])
        raise WheelError(f"{page} does not list {filename}: set PIP_INDEX_URL to an index that does")


class Links(html.parser.HTMLParser):
    """Text and address of every link of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self._address = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self._address = dict(attrs).get("href")

    def handle_data(self, data):
        if self._address:
            self.found.append((data.strip(), self._address))
            self._address = None


def passing(error):
    """Whether the same request may do better in a moment."""
    return not isinstance(error, urllib.error.HTTPError) or error.code == 429 or error.code >= 500


def reason(error):
    return getattr(error, "reason", None) or error or type(error).__name__


class Remote(io.RawIOBase):
    """A file on a server that reads like a local one: what is not there yet is fetched."""

    def __init__(self, index, url, size, folder, arrived=lambda count: None):
        super().__init__()
        self._index, self._url, self._size = index, url, size
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.arrived = arrived
        self._position = 0
        self._files = {}

    def seekable(self):
        return True

    def readable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self):
        return self._position

    def readinto(self, buffer):
        start, end = self._position, min(self._position + len(buffer), self._size)
        if start >= end:
            return 0
        if (part := self._part(start)) is None:
            # Whoever reads near the end is looking for the zip's directory.
            self.fetch(min(start, self._size - TAIL) if self._size - start < TAIL < self._size else start, end)
            part = self._part(start)
        (first, last), file = part
        file.seek(start - first)
        count = file.readinto(memoryview(buffer)[: min(end, last) - start])
        self._position += count
        return count

    def close(self):
        for file in self._files.values():
            file.close()
        super().close()

    def _name(self, start, end):
        return self._folder / f"{start}-{end}"

    def _part(self, offset):
        """The whole part that holds an offset, and most after it."""
        best = None
        for path in self._folder.iterdir():
            start, end = map(int, path.name.split("-"))
            if start <= offset < end and path.stat().st_size == end - start and (not best or end > best[0][1]):
                best = (start, end), path
        if not best:
            return None
        span, path = best
        if path not in self._files:
            self._files[path] = path.open("rb")
        return span, self._files[path]

    def missing(self, start, end):
        """Bytes of a range that are still to come."""
        if part := self._part(start):
            return self.missing(part[0][1], end) if part[0][1] < end else 0
        path = self._name(start, end)
        return end - start - (path.stat().st_size if path.exists() else 0)

    def fetch(self, start, end):
        """Makes a range lie in a part file."""
        failures = 0
        path = self._name(start, end)
        while not ((part := self._part(start)) and part[0][1] >= end):
            have = path.stat().st_size if path.exists() else 0
            if have > end - start:
                path.unlink()
                continue
            try:
                count = self._append(path, start + have, end)
                error = f"the connection ended {end - start - have - count} bytes early"
            except (OSError, http.client.HTTPException) as caught:
                if getattr(caught, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise WheelError(f"no space left in {self._folder}") from caught
                if not passing(caught):
                    raise WheelError(f"cannot fetch {self._url}: {reason(caught)}") from caught
                count = (path.stat().st_size if path.exists() else 0) - have
                error = reason(caught)
            failures = 0 if count > 0 else failures + 1
            if failures == ATTEMPTS:
                raise WheelError(f"cannot fetch {self._url}: {error}. What has come is kept: run this again to go on")
            time.sleep(failures)

    def _append(self, path, start, end):
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with self._index.open(self._url, headers) as answer:
            if answer.status == http.client.PARTIAL_CONTENT:
                said = answer.headers.get("Content-Range", "")
                if not re.fullmatch(rf"bytes {start}-\d+/{self._size}", said):
                    raise WheelError(f"asked {self._url} for byte {start} of {self._size}, it answered {said or 'without a Content-Range'}")
                return self._copy(answer, path, "ab")
            # No ranges here: the whole file comes, and a cut means to begin again.
            if answer.headers.get("Content-Length", str(self._size)) != str(self._size):
                raise WheelError(f"{self._url} is not {self._size} bytes long: it is another file")
            return self._copy(answer, self._name(0, self._size), "wb")

    def _copy(self, answer, path, mode):
        count = 0
        with path.open(mode) as part:
            while chunk := answer.read(CHUNK):
                part.write(chunk)
                count += len(chunk)
                self.arrived(len(chunk))
        return count


def ranges(archive, members):
    """The byte ranges (start, end) of a zip file that hold these members, near ones joined."""
    starts = sorted(info.header_offset for info in archive.infolist()) + [archive.start_dir]
    after = dict(zip(starts, starts[1:]))
    joined = []
    for start in sorted(info.header_offset for info in members):
        if joined and start - joined[-1][1] <= HOLE:
            joined[-1][1] = after[start]
        else:
            joined.append([start, after[start]])
    return [tuple(one) for one in joined]
