"""A stand-in for the Hugging Face Hub on this machine: the few requests by which a bundle is pushed and downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"
MODEL = r"(?P<repo>[\w-]+/[\w-]+)"
# Method and path of each request, and the method below that answers it.
ROUTES = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/models/{MODEL}/preupload/main", "preupload"),
    ("POST", rf"/{MODEL}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/objects/(?P<oid>\w+)", "store"),
    ("POST", rf"/api/models/{MODEL}/commit/main", "commit"),
    ("POST", rf"/api/models/{MODEL}/tag/main", "tag"),
    ("GET", rf"/api/models/{MODEL}/refs", "refs"),
    ("GET", rf"/api/models/{MODEL}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", rf"/api/models/{MODEL}/tree/(?P<revision>[^/]+)", "tree"),
    ("GET", rf"/{MODEL}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class Hub:
    """What the hub holds: for each repository its commits, and the commits' names."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.names: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}
        self.url = ""

    def create(self, body: bytes) -> Any:
        request = json.loads(body)
        repo = f"{request['organization']}/{request['name']}"
        self.names.setdefault(repo, {})
        return {"url": f"{self.url}/{repo}"}

    def validate(self, body: bytes) -> Any:
        assert json.loads(body)["content"].startswith("---\n")
        return {"errors": [], "warnings": []}

    def preupload(self, body: bytes, repo: str) -> Any:
        """Weights go as large files, as on the real hub."""
        files = json.loads(body)["files"]
        modes = {f["path"]: "lfs" if f["path"].endswith(".pt") else "regular" for f in files}
        return {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}

    def batch(self, body: bytes, repo: str) -> Any:
        objects = json.loads(body)["objects"]
        return {
            "transfer": "basic",
            "objects": [{**o, "actions": {"upload": {"href": f"{self.url}/objects/{o['oid']}"}}} for o in objects],
        }

    def store(self, body: bytes, oid: str) -> Any:
        assert hashlib.sha256(body).hexdigest() == oid
        self.objects[oid] = body
        return {}

    def commit(self, body: bytes, repo: str) -> Any:
        files = dict(self.commits.get(self.names[repo].get("main", ""), {}))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = files
        self.names[repo]["main"] = sha
        return {"commitUrl": f"{self.url}/{repo}/commit/{sha}", "commitOid": sha}

    def tag(self, body: bytes, repo: str) -> Any:
        self.names[repo][json.loads(body)["tag"]] = self.names[repo]["main"]
        return {}

    def refs(self, body: bytes, repo: str) -> Any:
        refs = {name: {"name": name, "ref": name, "targetCommit": sha} for name, sha in self.names[repo].items()}
        return {"branches": [refs.pop("main")], "tags": list(refs.values()), "converts": []}

    def info(self, body: bytes, repo: str, revision: str) -> Any:
        sha = self.sha(repo, revision)
        return {"id": repo, "sha": sha, "siblings": [{"rfilename": path} for path in self.commits[sha]]}

    def tree(self, body: bytes, repo: str, revision: str) -> Any:
        files = self.commits[self.sha(repo, revision)]
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        return [{"type": "file", "path": p, "size": len(files[p]), "oid": digest} for p, digest in digests.items()]

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> bytes:
        return self.commits[self.sha(repo, revision)][path]

    def sha(self, repo: str, revision: str) -> str:
        """Return a commit by its name or by itself; a KeyError where there is none."""
        return revision if revision in self.commits else self.names[repo][revision]


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            method = "GET" if self.command == "HEAD" else self.command
            path = unquote(urlsplit(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            for verb, pattern, name in ROUTES:
                found = re.fullmatch(pattern, path)
                if verb == method and found:
                    return self.reply(name, body, found.groupdict())
            return self.send(501, f"{self.command} {self.path}".encode(), {})

        def reply(self, name: str, body: bytes, parts: dict[str, str]) -> None:
            if name in ("create", "commit", "tag") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.send(401, b"", {})
            try:
                content = getattr(hub, name)(body, **parts)
            except KeyError:
                return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            if not isinstance(content, bytes):
                return self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
            tags = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            return self.send(200, content, {**tags, "X-Repo-Commit": hub.sha(parts["repo"], parts["revision"])})

        def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 (the base class's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
