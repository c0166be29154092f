"""A stand-in for the Hugging Face hub on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIRST, SECOND = "1" * 40, "2" * 40


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks: the list of files, and a file's head and content."""

    def answer(self, body: bytes, status: int = 200, send: int | None = None, **headers: Any) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:send])

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(f"{self.command} {self.path}")
        commits, head = server.commits, list(server.commits)[-1]
        path = self.path.split("?")[0].strip("/")
        if path.startswith(f"api/{server.kind}/{server.repository}"):
            files = commits[head].items()
            siblings = [{"rfilename": name} for name, _ in files]
            if "blobs=" in self.path.lower():
                siblings = [
                    {"rfilename": name, "size": len(body), "blobId": "0" * 40}
                    | {"lfs": {"sha256": sha256(body), "size": len(body), "pointerSize": 100}}
                    for name, body in files
                ]
            info = {"id": server.repository, "sha": head, "siblings": siblings}
            self.answer(json.dumps(info).encode(), Content_Type="application/json")
            return
        # Files of models have no prefix in their address.
        prefix = "" if server.kind == "models" else f"{server.kind}/"
        resolve = f"{prefix}{server.repository}/resolve/"
        revision, _, name = path.removeprefix(resolve).partition("/")
        commit = head if revision == "main" else revision
        if path.startswith(resolve) and name in commits.get(commit, {}):
            self.file(name, commits[commit][name], commit)
            return
        self.send_error(404)

    do_HEAD = do_GET

    def file(self, name: str, body: bytes, commit: str) -> None:
        headers = {"ETag": f'"{sha256(body)}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        body = self.server.changed.get(name, body)
        send = self.server.cuts.pop(0) if self.command == "GET" and self.server.cuts else None
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(wanted[1])
            self.server.ranges.append(start)
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.answer(body[start:], 206, send, **headers)
        else:
            self.answer(body, send=send, **headers)

    def log_message(self, *args: object) -> None:
        pass


class Hub:
    """A server that holds one repository of some commits.

    ``server.cuts`` lists after how many bytes the next answers break off; ``server.changed`` holds files whose
    content is not what the hub says it is; ``server.ranges`` lists where downloads were taken up again.
    """

    def __init__(self, kind: str, repository: str, files: dict[str, bytes]) -> None:
        self.server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.kind, self.server.repository = kind, repository
        self.server.commits, self.server.requests = {FIRST: dict(files)}, []
        self.server.cuts, self.server.changed, self.server.ranges = [], {}, []
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def publish(self, name: str, content: bytes) -> None:
        self.server.commits[SECOND] = self.server.commits[FIRST] | {name: content}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
