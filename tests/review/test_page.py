"""The page in a real browser: one sitting from the first look to Save, a crash and what is left of it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import warnings
from urllib.parse import urlsplit

import numpy as np
import pytest
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd.simulate import Detector, Marker

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    detector = Detector(gain=200, background=0.05)
    panel = {"DAPI": (Marker("nucleus", 1.0), detector)}
    panel |= {name: (Marker("membrane", 0.3), detector) for name in ("CD3", "CD20")}
    types = {"T cell": (1.0, ("DAPI", "CD3")), "B cell": (1.0, ("DAPI", "CD20")), "other": (1.5, ("DAPI",))}
    sdata = ns.simulate.simulate(panel, types, n_regions=2, shape=(256, 256), rng=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ns.predict(sdata, progress=False)
    adata.layers["truth"] = adata.layers.pop("gold")
    adata.layers["nimbus"] = (0.25 + 0.5 * adata.layers["nimbus"]).astype(np.float32)
    path = tmp_path_factory.mktemp("review") / "tissue.zarr"
    sdata.write(path)
    return path


@pytest.fixture
def store(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "tissue.zarr")


@pytest.fixture
def serve(store):
    running = []

    def start(*options):
        code = "from nimbus_sd.cli import app; app()"
        command = [
            sys.executable,
            "-u",
            "-c",
            code,
            "review",
            str(store),
            "--no-browser",
            "--annotator",
            "ann",
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(process)
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
                return process, found[0]
        raise AssertionError("the server gave no address")

    yield start
    for process in running:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.fixture
def open_page(browser):
    pages = []

    def open_at(url, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 800}, bypass_csp=True)
        page.faults = []
        page.on("request", lambda request: _own(request.url) or page.faults.append(request.url))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(url)
        page.wait_for_function("window.nimbus?.state.scores.value && nimbus.viewer?.stats().pending === 0")
        pages.append(page)
        return page

    yield open_at
    for page in pages:
        assert page.faults == []
        page.close()


def _own(url):
    return urlsplit(url).hostname in ("127.0.0.1", None)


def _value(page, name):
    return page.evaluate(f"nimbus.state.{name}.value")


def _settled(page, unsaved):
    page.wait_for_function(f"nimbus.state.unsaved.value === {unsaved}")


def _log(store):
    path = store.with_name(f"{store.name}.review.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _label(page, truth, marker, n):
    """Answer for the cells that the page proposes, then for others, as somebody who knows the truth."""
    none_left = "nimbus.state.notices.value.some((one) => one.text.startsWith('No doubtful'))"
    proposed = 0
    page.keyboard.press("n")
    page.wait_for_function("nimbus.state.reason.value !== '' && nimbus.state.selected.value !== null")
    for number in range(n):
        if page.evaluate(none_left):
            page.evaluate("nimbus.state.selectCell(nimbus.state.labels.value.findIndex((one) => one === 0), true)")
        else:
            proposed += 1
        row = _value(page, "selected")
        page.keyboard.press("+" if truth[row, marker] > 0.5 else "-")
        _settled(page, number + 1)
        page.wait_for_function(f"![null, {row}].includes(nimbus.state.selected.value) || {none_left}")
    return proposed


def test_one_sitting(store, serve, open_page):
    process, url = serve()
    page = open_page(url)
    truth = np.asarray(read_zarr(store).tables["table"].layers["truth"])
    names = list(read_zarr(store).tables["table"].var_names)

    # The tissue is drawn, moves and zooms.
    canvas = page.locator(".canvas canvas")
    box = canvas.bounding_box()
    assert len(set(canvas.screenshot())) > 100
    first = page.evaluate("nimbus.viewer.view")
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -600)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 150, steps=3)
    page.mouse.up()
    page.wait_for_function("nimbus.viewer.stats().pending === 0")
    moved = page.evaluate("nimbus.viewer.view")
    assert moved["scale"] > 2 * first["scale"] and moved["x"] != first["x"]

    # The threshold by keys: what is counted follows.
    page.evaluate("nimbus.state.selectMarker('CD3')")
    page.wait_for_function("nimbus.state.scores.value")
    counts = page.locator("table.counts td").first
    before = int(counts.inner_text().replace(",", ""))
    for _ in range(10):
        page.keyboard.press("]")
    page.wait_for_function("nimbus.state.draft.value === null && nimbus.state.unsaved.value === 1")
    assert _value(page, "threshold") == pytest.approx(0.6)
    assert int(counts.inner_text().replace(",", "")) < before
    page.keyboard.press("z")
    _settled(page, 0)
    assert _value(page, "threshold") == 0.5

    # Fifty answers; each is in the log before the next comes, the line learns, doubt falls.
    doubt = page.evaluate("nimbus.state.marker.value.doubt")
    page.evaluate("nimbus.state.notices.value = []")
    assert _label(page, truth, names.index("CD3"), 50) >= 5
    _settled(page, 50)
    assert sum(1 for line in _log(store) if line.get("do", {}).get("do") == "label") == 50
    learned = page.evaluate("nimbus.state.marker.value")
    assert learned["labels"] == 50, learned
    assert learned["doubt"] < doubt / 2 and "50" in learned["learned"]
    page.keyboard.press("z")
    _settled(page, 49)

    # Clusters are merged, and cells follow.
    page.get_by_role("tab", name="Clusters").click()
    page.locator(".heat [role=option]").first.wait_for()
    page.evaluate("nimbus.state.act({do: 'merge', key: 'cell_type', names: ['T cell', 'B cell'], into: 'Lymphocyte'})")
    page.wait_for_function("nimbus.state.clusters.value?.names.includes('Lymphocyte')")
    page.wait_for_function(
        "nimbus.state.groupsOf('cell_type') && new Set(nimbus.state.groupsOf('cell_type')).size === 2"
    )

    # A reload finds the view and everything else again.
    place = "[nimbus.viewer.view.x, nimbus.viewer.view.y, nimbus.viewer.view.scale]"
    view = page.evaluate(place)
    page.reload()
    page.wait_for_function("window.nimbus?.state.scores.value && nimbus.viewer")
    assert page.evaluate(place) == pytest.approx(view) and _value(page, "markerName") == "CD3"
    assert _value(page, "unsaved") == 50 and _value(page, "tab") == "Clusters"

    # Killed: what was done is there in the next review, and Save writes it.
    process.send_signal(signal.SIGKILL)
    process.wait()
    page.keyboard.press("z")
    page.wait_for_function("nimbus.state.lost.value")
    _, url = serve()
    again = open_page(url)
    assert _value(again, "unsaved") == 50
    again.keyboard.press("s")
    _settled(again, 0)
    adata = read_zarr(store).tables["table"]
    given = np.asarray(adata.layers["gold_training"][:, names.index("CD3")])
    kept = np.isfinite(given)
    assert kept.sum() == 49 and ((given > 0.5) == (truth[:, names.index("CD3")] > 0.5))[kept].all()
    assert "Lymphocyte" in set(adata.obs["metacluster_cell_type"]) and "nimbus_adapted" in adata.layers
    assert adata.varm["positive"].loc["CD3", "threshold"] == 0.5


def test_a_second_page_is_told_and_can_take_over(serve, open_page):
    _, url = serve()
    first = open_page(url)
    second = open_page(url)
    second.get_by_role("button", name="Take over").click()
    second.wait_for_function("nimbus.state.writable.value")
    first.evaluate("nimbus.state.label([0], 5)")
    first.wait_for_function("!nimbus.state.writable.value")
    assert first.get_by_text("another page").first.is_visible()
    assert _value(first, "unsaved") == 0


def test_regions_are_judged_blind(serve, open_page, store):
    _, url = serve()
    page = open_page(url)
    page.get_by_role("tab", name="Judge").click()
    page.get_by_role("button", name=re.compile("Draw")).click()
    page.get_by_role("button", name=re.compile("^Judge")).first.click()
    page.wait_for_function("nimbus.state.blind.value")
    assert _value(page, "scores") is None
    page.keyboard.press("n")
    page.wait_for_function("nimbus.state.selected.value !== null")
    page.keyboard.press("+")
    page.wait_for_function("nimbus.state.unsaved.value > 0")
    steps = [line["do"] for line in _log(store) if "do" in line]
    assert steps[-1]["layer"] == "gold:ann" and steps[-1]["state"] == 5


@pytest.mark.parametrize("width", [1280, 800])
def test_everything_fits(serve, open_page, width):
    _, url = serve()
    page = open_page(url, width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = "[...document.querySelectorAll('header button, .centre button')].filter((one) => one.offsetParent)"
    outside = f"{shown}.filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.innerText)"
    assert page.evaluate(outside) == []
