"""The server of the page: this machine alone, a token, a few routes; all work in threads."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from socket import socket
from typing import Any, Final

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from nimbus_sd._review.session import PageTaken, Session

logger = logging.getLogger("nimbus_sd")

_BODY = 1 << 20
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# All that is served of the folder `page`; no path is ever made of what was asked for.
_PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/index.html": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/LICENSES.txt": ("LICENSES.txt", "text/plain; charset=utf-8"),
}


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


_TILE: Final = {"region": int, "level": int, "row": int, "col": int}
#: What can be read: the session's function, and how its arguments are read.
_READ: Final[Mapping[str, tuple[Callable[..., Any], Mapping[str, Callable[[str], Any]]]]] = {
    "start": (Session.start, {}),
    "cells": (Session.cells, {}),
    "scores": (Session.scores, {"layer": str, "marker": str}),
    "labels": (Session.labels, {"layer": str, "marker": str}),
    "groups": (Session.groups_of, {"key": str}),
    "cell": (Session.cell, {"row": int, "marker": str}),
    "next": (Session.next, {"marker": str, "layer": str, "after": _integers}),
    "contrast": (Session.contrast, {"region": int, "channel": int}),
    "tile/image": (Session.image_tile, {**_TILE, "channel": int}),
    "tile/cells": (Session.cell_tile, _TILE),
    "crop": (Session.crop, {"row": int, "channels": _integers, "um": float}),
    "clusters": (Session.clusters, {"key": str}),
    "examples": (Session.examples, {"key": str, "name": str}),
    "judging": (Session.judging, {}),
    "tuning": (Session.tuning, {}),
}
#: What can be done, and what is needed for it beside the page that does it.
_DO: Final[Mapping[str, tuple[Callable[..., Any], Mapping[str, type]]]] = {
    "page": (Session.take_page, {"take_over": bool}),
    "do": (Session.do, {"page": str, "do": dict}),
    "undo": (Session.undo, {"page": str}),
    "save": (Session.save, {"page": str}),
    "tuning": (Session.tune, {"page": str, "action": str}),
}
_OPTIONAL: Final = {"um": "40", "after": ""}


class _Handler(RequestHandler):
    """Answers all requests; `prepare` refuses those that are not from the page."""

    def initialize(self, session: Session, token: str, pool: ThreadPoolExecutor, turn: asyncio.Lock) -> None:
        self.session, self.token, self.pool, self.turn = session, token, pool, turn

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        host, origin, path = self.request.host, self.request.headers.get("Origin"), self.request.path
        if not re.fullmatch(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", host):
            self._fail(403, "This is served under the names 127.0.0.1 and localhost only.")
        elif origin is not None and origin != f"http://{host}":
            self._fail(403, "This answers its own page only.")
        elif len(self.request.body) > _BODY:
            self._fail(413, "The request is larger than 1 MB.")
        elif path.startswith("/api/") or _PAGE.get(path, ("", ""))[0] == "index.html":
            given = self.request.headers.get("X-Token", "") if path.startswith("/api/") else self._argument("token")
            if not hmac.compare_digest((given or "").encode(), self.token.encode()):
                self._fail(403, "The token is wrong: open the address that nimbus-sd printed, whole.")

    async def get(self) -> None:
        if self.request.path in _PAGE:
            name, kind = _PAGE[self.request.path]
            self.set_header("Content-Type", kind)
            await self.finish(files("nimbus_sd._review").joinpath("page", name).read_bytes())
            return
        function, arguments = _READ.get(self.request.path.removeprefix("/api/"), (None, {}))
        if function is None or not self.request.path.startswith("/api/"):
            self._fail(404, "There is nothing here.")
            return
        given: dict[str, Any] = {}
        for name, read in arguments.items():
            text = self._argument(name)
            text = _OPTIONAL.get(name) if text is None else text
            try:
                given[name] = read("" if text is None else text)
                if text is None or given[name] != given[name]:
                    raise ValueError
            except ValueError:
                self._fail(400, f"{name!r} is missing or wrong: {text!r}.")
                return
        await self._answer(function, given, tile=self.request.path.startswith("/api/tile/"))

    async def post(self) -> None:
        function, arguments = _DO.get(self.request.path.removeprefix("/api/"), (None, {}))
        if function is None or not self.request.path.startswith("/api/"):
            self._fail(404, "There is nothing here.")
            return
        try:
            given = json.loads(self.request.body)
        except ValueError:
            given = None
        if not isinstance(given, dict) or any(
            not isinstance(given.get(name), kind) for name, kind in arguments.items()
        ):
            wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in arguments.items())
            self._fail(400, f"The request must be a JSON object with {wanted}.")
            return
        # One after the other, and a queue takes no thread from those who read.
        async with self.turn:
            await self._answer(function, {name: given[name] for name in arguments})

    async def _answer(self, function: Callable[..., Any], given: Mapping[str, Any], *, tile: bool = False) -> None:
        def work() -> tuple[bytes, str]:
            return _encoded(function(self.session, **given), gzipped)

        gzipped = "gzip" in self.request.headers.get("Accept-Encoding", "")
        try:
            body, kind = await asyncio.get_running_loop().run_in_executor(self.pool, work)
        except PageTaken as error:
            self._fail(409, str(error))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self._fail(400, str(error.args[0] if error.args else error))
        except (OSError, MemoryError, ImportError) as error:
            self._fail(500, " ".join([str(error), *getattr(error, "__notes__", [])]))
        except Exception:
            logger.exception("the review page could not be answered: %s", self.request.path)
            self._fail(500, "nimbus-sd failed at this; what it says is where it was started.")
        else:
            if tile:
                # Another store under the same address has another token.
                self.set_header("Cache-Control", "private, max-age=3600")
                self.set_header("Vary", "X-Token")
            if gzipped and kind == "application/octet-stream":
                self.set_header("Content-Encoding", "gzip")
            self.set_header("Content-Type", kind)
            await self.finish(body)

    def compute_etag(self) -> None:
        """Nothing is asked for twice, so that a hash of millions of cells is lost time."""

    def _argument(self, name: str) -> str | None:
        return self.get_query_argument(name, None)

    def _fail(self, status: int, text: str) -> None:
        self.set_status(status)
        self.finish({"error": " ".join(text.split())})

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish({"error": "This cannot be answered."})

    def log_exception(self, *_: Any) -> None:
        """Log nothing: what a client sent wrongly is answered."""


def _encoded(answer: Any, gzipped: bool) -> tuple[bytes, str]:
    """Turn what a function returns (JSON, a PNG, or arrays) into a body and its type."""
    if isinstance(answer, bytes):
        return answer, "image/png"
    if isinstance(answer, Mapping):
        return json.dumps(_plain(answer), allow_nan=False).encode(), "application/json"
    arrays = [answer] if isinstance(answer, np.ndarray) else answer
    body = b"".join(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    return gzip.compress(body, 1) if gzipped else body, "application/octet-stream"


def _plain(value: Any) -> Any:
    """Turn numbers of numpy into those of JSON, which has no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


async def serve(session: Session, token: str, sockets: Sequence[socket], stop: asyncio.Event) -> None:
    """Serve until it is told to stop."""
    with ThreadPoolExecutor(4, "review") as pool:
        settings = {"session": session, "token": token, "pool": pool, "turn": asyncio.Lock()}
        application = Application([(r".*", _Handler, settings)], log_function=lambda _: None)
        server = HTTPServer(application, max_body_size=8 * _BODY, max_buffer_size=16 * _BODY)
        server.add_sockets(sockets)
        await stop.wait()
        server.stop()
        await server.close_all_connections()
