"""Who may ask, and what is answered: through HTTP."""

import asyncio
import contextlib
import gzip
import http.client
import json
import shutil
import socket
import struct
from urllib.parse import urlsplit

import numpy as np
import pytest
from spatialdata import read_zarr

import nimbus_sd as ns

pytestmark = pytest.mark.filterwarnings("ignore")


class Client:
    """Asks as a browser does, or does not."""

    def __init__(self, url):
        self.address, self.token = urlsplit(url).netloc, urlsplit(url).query.removeprefix("token=")

    def __call__(self, path, body=None, method=None, **headers):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"X-Token": self.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is not None:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data if body is not None else None)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def json(self, path, body=None):
        status, _, content = self(path, body)
        assert status == 200, content
        return json.loads(content)


@pytest.fixture(scope="module")
def page(scored, tmp_path_factory):
    store = shutil.copytree(scored, tmp_path_factory.mktemp("served") / "s.zarr")
    handle = ns.review(read_zarr(store), annotator="anna")
    yield handle
    handle.stop()


@pytest.fixture(scope="module")
def ask(page):
    return Client(page.url)


def test_only_this_machine_is_listened_to(page):
    assert page._session is not None and page.url.startswith("http://127.0.0.1:") and len(page.url.split("=")[1]) >= 32
    assert page.url in page._repr_html_() and page.url in repr(page)


@pytest.mark.parametrize("path", ["/", "/index.html", "/app.js", "/app.css", "/LICENSES.txt"])
def test_the_page(ask, path):
    token = f"?token={ask.token}" if path in ("/", "/index.html") else ""
    status, headers, content = ask(path + token, X_Token=None)
    assert status == 200 and content
    assert "default-src 'self'" in headers["Content-Security-Policy"] and headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff" and "tornado" not in str(headers).lower()


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=x", "/index.html", "/?token=%ff"])
def test_the_page_needs_its_token(ask, path):
    assert ask(path)[0] in (400, 403)


@pytest.mark.parametrize("token", [None, "", "x", "é"])
def test_a_wrong_token_is_refused(ask, token):
    for path, body in (("/api/start", None), ("/api/save", {"page": "x"}), ("/api/nothing", None)):
        status, _, content = ask(path, body, X_Token=token)
        assert status == 403 and "token" in json.loads(content)["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "[::1].x", ""]
)
def test_other_hosts_are_refused(ask, host):
    assert ask("/api/start", Host=host)[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:9"])
def test_tunnels_may_have_other_ports(ask, host):
    assert ask("/api/start", Host=host)[0] == 200
    assert ask("/api/start", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1:1", "https://{}", "http://{}.evil"]
)
def test_other_origins_are_refused(ask, origin):
    status, _, content = ask("/api/start", Origin=origin.format(ask.address))
    assert status == 403 and "own page" in json.loads(content)["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/../serve.py",
        "/page/../serve.py",
        "/%2e%2e/serve.py",
        "/..%2fserve.py",
        "//etc/passwd",
        "/etc/passwd",
        "/app.js/",
        "/app.js%00",
        "/page/app.js",
        "/web/app.tsx",
        "/static/app.js",
        "/api",
        "/api/",
        "/api/../app.js",
        "/api/start/",
        "/api/tile",
        "/api/nothing",
        "/C:\\\\x",
    ],
)
def test_no_path_leads_elsewhere(ask, path):
    assert ask(path)[0] in (400, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(ask, method):
    assert ask("/api/start", method=method)[0] == 405


def test_large_bodies_are_refused(ask):
    assert ask("/api/do", b"x" * (1 << 20))[0] == 400
    status, _, content = ask("/api/do", b"x" * ((1 << 20) + 1))
    assert status == 413 and "1 MB" in json.loads(content)["error"]
    # Of a much larger one not all is read.
    with contextlib.suppress(OSError):
        assert ask("/api/do", b"x" * (9 << 20))[0] in (400, 413)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", {}, {"page": 1, "do": {}}, {"page": "x", "do": "label"}])
def test_what_is_no_request_is_told(ask, body):
    status, _, content = ask("/api/do", body)
    assert status == 400 and "must be a JSON object with page (str), do (dict)" in json.loads(content)["error"]


def test_values_of_cells_are_packed(ask, scored):
    adata = read_zarr(scored)["table"]
    n = adata.n_obs
    status, headers, content = ask("/api/cells", Accept_Encoding="gzip")
    assert status == 200 and headers["Content-Encoding"] == "gzip" and headers["Cache-Control"] == "no-store"
    content = gzip.decompress(content)
    assert len(content) == 14 * n
    assert np.frombuffer(content, "<f4", n).tolist() == adata.obsm["spatial"][:, 0].astype("f4").tolist()
    assert set(np.frombuffer(content, "<u2", n, 8 * n).tolist()) == {0, 1, 2}
    scores = np.frombuffer(ask("/api/scores?layer=nimbus&marker=CD20")[2], "<f4")
    assert (scores == adata.layers["nimbus"][:, 1]).all()
    groups = np.frombuffer(ask("/api/groups?key=cell_type")[2], "<u2")
    named = np.array(ask.json("/api/start")["groupings"][0]["names"])[groups - 1]
    assert (named == adata.obs["cell_type"]).all()


def test_tiles_and_crops(ask, scored):
    sdata = read_zarr(scored)
    region = ask.json("/api/start")["regions"][1]["name"]
    status, headers, content = ask("/api/tile/cells?region=1&level=0&row=0&col=0")
    rows = np.frombuffer(content, "<u4").reshape(96, 96)
    ids = np.concatenate([[0], sdata["table"].obs["instance_id"]])[rows]
    assert status == 200 and (ids == sdata[region].to_numpy()).all()
    assert headers["Vary"] == "X-Token" and "private" in headers["Cache-Control"]
    assert len(ask("/api/tile/image?region=0&channel=1&level=0&row=0&col=0")[2]) == 96 * 96
    png = ask("/api/crop?row=5&channels=0,1")[2]
    assert png.startswith(b"\x89PNG") and struct.unpack(">II", png[16:24]) == (96, 96)


@pytest.mark.parametrize(
    "path, message",
    [
        ("/api/scores?layer=nimbus", "'marker'"),
        ("/api/scores?layer=nimbus&marker=CD4", "no marker 'CD4'"),
        ("/api/scores?layer=X&marker=CD3", "no layer 'X'"),
        ("/api/labels?layer=gold:../x&marker=CD3", "letters, digits"),
        ("/api/groups?key=region", "no grouping 'region'"),
        ("/api/cell?row=-1&marker=CD3", "no cell -1"),
        ("/api/cell?row=1e3&marker=CD3", "'row' is missing or wrong"),
        ("/api/next?marker=CD3&layer=nimbus&after=99999", "no cell 99999"),
        ("/api/contrast?region=0&channel=2", "no channel 2"),
        ("/api/tile/image?region=0&channel=0&level=0&row=9&col=0", "no tile 9, 0"),
        ("/api/tile/cells?region=7&level=0&row=0&col=0", "no region 7"),
        ("/api/crop?row=0&channels=0&um=nan", "'um'"),
        ("/api/crop?row=0&channels=0,1,0,1", "one to three channels"),
        ("/api/clusters?key=x", "no grouping 'x'"),
    ],
)
def test_wrong_arguments_are_told(ask, path, message):
    status, headers, content = ask(path)
    assert (
        status == 400
        and message in json.loads(content)["error"]
        and headers["Content-Type"].startswith("application/json")
    )


def test_one_page_writes_and_is_told_when_another_takes_over(ask):
    first = ask.json("/api/page", {"take_over": True})["page"]
    assert ask("/api/page", {"take_over": False})[0] == 409
    second = ask.json("/api/page", {"take_over": True})["page"]
    step = {"do": "label", "marker": "CD3", "layer": "gold_training", "rows": [0], "state": 5}
    status, _, content = ask("/api/do", {"page": first, "do": step})
    assert status == 409 and "taken over" in json.loads(content)["error"]
    assert ask.json("/api/do", {"page": second, "do": step})["unsaved"] == 1
    assert np.frombuffer(ask("/api/labels?layer=gold_training&marker=CD3")[2], np.uint8)[0] == 5
    assert ask.json("/api/undo", {"page": second})["unsaved"] == 0


def test_it_starts_and_stops_while_a_loop_runs(scored, tmp_path):
    sdata = read_zarr(shutil.copytree(scored, tmp_path / "s.zarr"))

    async def notebook():
        handle = ns.review(sdata)
        with pytest.raises(BlockingIOError, match="in use by a review"):
            ns.review(sdata)
        return handle

    handle = asyncio.run(notebook())
    assert Client(handle.url).json("/api/start")["n_cells"] == sdata["table"].n_obs
    assert handle.stop() == handle.stop() == "All steps are saved." and "stopped" in repr(handle)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match=r"Port \d+ of this machine cannot be used"):
            ns.review(sdata, port=other.getsockname()[1])
    # The one that failed holds nothing.
    ns.review(sdata).stop()
