"""A small hub on loopback, speaking as much of the real one's protocol as a download needs.

Checked against what ``huggingface_hub`` 2.4 expects, by its source and by letting its own
``hf_hub_download`` fetch from here (test_hub.py):

- ``GET /api/models/REPO/revision/REV?blobs=True`` lists ``siblings`` with ``rfilename``, ``size``,
  ``blobId``, and for large files ``lfs`` with ``sha256``, ``size``, ``pointerSize``; ``sha`` is
  the commit (``HfApi.model_info``).
- ``HEAD`` and ``GET /REPO/resolve/REV/FILE`` carry ``X-Repo-Commit``; a small file comes with its
  git SHA-1 as ``ETag``, a large one is a redirect with ``X-Linked-Etag`` (its SHA-256) and
  ``X-Linked-Size`` to another host, which serves it with ``Range`` (``get_hf_file_metadata``,
  ``http_get``). No header speaks of xet, so the library takes plain HTTP, too.
- Refusals carry ``X-Error-Code``: RepoNotFound (401 for whoever does not say who he is),
  RevisionNotFound, EntryNotFound (404), GatedRepo (401, 403) (``hf_raise_for_status``).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 10_000
"""From so many bytes on a file is kept as large files are."""
BLOCK = 64 * 1024


@dataclass
class Repo:
    """One repository: files by commit, and what its branches and tags point to."""

    commits: dict[str, Mapping[str, bytes]]
    refs: dict[str, str]
    gated: bool = False


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    range: str | None
    token: str | None
    agent: str


@dataclass
class Hub:
    """The server and its faults.

    ``cut_after``: an answer ends after so many bytes, ``cuts`` times; when the hub ``dies`` of
    that, everything later is answered with 503. ``hold_after``: an answer stops there, is
    ``held``, until ``released``. ``spoiled``: large files come with wrong bytes. ``status``: what
    every request is answered with; ``nonsense``: by something that is no hub. ``token`` opens
    gated repositories.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    cut_after: int | None = None
    cuts: int = 10**9
    dies: bool = False
    hold_after: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    spoiled: bool = False
    status: int | None = None
    nonsense: bool = False
    token: str | None = None

    def __enter__(self) -> Hub:
        handler = type("Bound", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def put(
        self, repo: str, files: Mapping[str, bytes], revision: str = "main", gated: bool = False
    ) -> str:
        """A commit of these files, on that branch. Returns the commit."""
        text = f"{repo} {revision} {sorted((n, sha256(c)) for n, c in files.items())}"
        commit = hashlib.sha1(text.encode()).hexdigest()
        one = self.repos.setdefault(repo, Repo({}, {}))
        one.commits[commit], one.refs[revision], one.gated = files, commit, gated
        return commit

    def downloads(self) -> list[Asked]:
        """What was asked for of files' contents."""
        return [a for a in self.asked if a.method == "GET" and not a.path.startswith("/api/")]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    token: str | None
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        header = self.headers.get
        self.token = header("Authorization")
        hub.asked.append(
            Asked(self.command, path, header("Range"), self.token, header("User-Agent") or "")
        )
        if hub.status is not None:
            self.answer(hub.status)
        elif hub.nonsense:
            self.answer(200, b"<html>Please log in to this network</html>")
        elif path.startswith("/cdn/"):
            self.serve(self.content(path.removeprefix("/cdn/")))
        elif path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self.list(repo, revision)
        else:
            repo, _, rest = path[1:].partition("/resolve/")
            revision, _, file = rest.partition("/")
            self.resolve(repo, revision, file)

    def content(self, digest: str) -> bytes:
        for repo in self.hub.repos.values():
            for files in repo.commits.values():
                for content in files.values():
                    if sha256(content) == digest:
                        return content
        raise AssertionError(digest)

    def find(self, name: str, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.answer(404 if self.token else 401, code="RepoNotFound")
            return None
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self.answer(404, code="RevisionNotFound")
            return None
        return commit, repo.commits[commit]

    def list(self, repo: str, revision: str) -> None:
        if found := self.find(repo, revision):
            commit, files = found
            siblings = [_sibling(name, content) for name, content in files.items()]
            info = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings}
            self.answer(200, json.dumps(info).encode(), type="application/json")

    def resolve(self, repo: str, revision: str, file: str) -> None:
        found = self.find(repo, revision)
        if found is None:
            return
        commit, files = found
        if file not in files:
            self.answer(404, code="EntryNotFound")
        elif self.hub.repos[repo].gated and (
            self.hub.token is None
            or self.headers.get("Authorization") != f"Bearer {self.hub.token}"
        ):
            self.answer(401 if self.headers.get("Authorization") is None else 403, code="GatedRepo")
        elif len(files[file]) < LARGE:
            content = files[file]
            self.serve(content, {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(content)}"'})
        else:
            digest = sha256(files[file])
            there = self.hub.url.replace("127.0.0.1", "localhost")
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(files[file])),
                "X-Linked-Etag": f'"{digest}"',
                "Location": f"{there}/cdn/{digest}",
            }
            self.answer(302, headers=headers)

    def serve(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """The bytes, or those asked for, with the fault that was ordered."""
        hub, start, end = self.hub, 0, len(content)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(end, int(last or end - 1) + 1)
            if start >= len(content):
                self.answer(416)
                return
        status = 206 if wanted else 200
        extra = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"} if wanted else {}
        body = memoryview(content)[start:end]
        if hub.spoiled and len(content) >= LARGE:
            body = memoryview(bytes(len(body)))
        self.send(status, len(body), {**(headers or {}), **extra, "Accept-Ranges": "bytes"})
        if self.command == "HEAD":
            return
        sent = 0
        while sent < len(body):
            if hub.cut_after is not None and sent >= hub.cut_after and hub.cuts > 0:
                hub.cuts -= 1
                hub.status = 503 if hub.dies else None
                self.close_connection = True
                return
            if hub.hold_after is not None and sent >= hub.hold_after:
                hub.held.set()
                hub.released.wait(60)
                hub.hold_after = None
            try:
                self.wfile.write(body[sent : sent + BLOCK])
            except OSError:  # the client is gone
                self.close_connection = True
                return
            sent += BLOCK

    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        code: str = "",
        type: str = "text/html",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        extra = {"X-Error-Code": code} if code else {}
        self.send(status, len(body), {"Content-Type": type, **extra, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def send(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _sibling(name: str, content: bytes) -> dict[str, object]:
    one: dict[str, object] = {
        "rfilename": name,
        "size": len(content),
        "blobId": git_sha1(content),
    }
    if len(content) >= LARGE:
        one["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return one
