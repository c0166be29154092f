import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from itertools import count

import numpy as np
import pytest
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd._review.session import PageTaken, Session

pytestmark = pytest.mark.filterwarnings("ignore")


def _open(store, annotator="anna", layer="nimbus"):
    return Session(read_zarr(store), "table", layer, annotator)


def _label(rows, state, into="gold_training", marker="CD3"):
    return {"do": "label", "marker": marker, "layer": into, "rows": rows, "state": state}


def test_labels_move_the_line_and_undo_takes_it_back(store):
    session = _open(store)
    page = session.take_page(False)["page"]
    before = session.marker("CD3")
    for row in range(4):
        answer = session.do(page, _label([row], 5))
    assert answer["undo"] == "CD3: positive for 1 cell" and answer["unsaved"] == 4
    assert answer["marker"]["labels"] == 4 and answer["marker"]["offset"] > 0
    assert session.labels("gold_training", "CD3")[:5].tolist() == [5, 5, 5, 5, 0]
    for _ in range(4):
        answer = session.undo(page)
    assert answer["marker"] == before and answer["undo"] is None
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo(page)
    session.close()


def test_what_was_not_saved_is_taken_up_and_save_writes_it(store):
    session = _open(store)
    page = session.take_page(False)["page"]
    steps = [_label([0, 1], 5), _label([2, 3], 1), {"do": "threshold", "marker": "CD20", "value": 0.3}]
    clusters = {"do": "merge", "key": "cell_type", "names": ["CD3", "CD20"], "into": "lymphocyte"}
    for step in [*steps, clusters, {"do": "draw", "n": 1}]:
        session.do(page, step)
    drawn = ns.labels.evaluation_regions(session.adata)
    row = int(np.flatnonzero(session.adata.obs["region"].isin(drawn))[0])
    session.do(page, _label([row], 2, "gold:anna", "CD20"))
    told = session.start()
    session.close()
    assert "evaluation" not in read_zarr(store)["table"].obs

    again = _open(store, None)
    assert {**again.start(), "notices": [], "page": 0} == {**told, "notices": [], "page": 0}
    assert again.notices == ["6 steps that were not saved were taken up again from the log."]
    answer = again.save(again.take_page(False)["page"])
    assert answer["unsaved"] == 0 and "calls in layers['positive']" in answer["saved"]
    adata = read_zarr(store)["table"]
    assert adata.layers["gold_training"][:4, 0].tolist() == [1, 1, 0, 0]
    assert adata.layers["gold_anna"][row, 1] == adata.layers["gold"][row, 1] == 0.25
    assert adata.varm["positive"].loc["CD20", "threshold"] == 0.3 and "nimbus_adapted" in adata.layers
    assert adata.obs["metacluster_cell_type"].unique().tolist() == ["lymphocyte"]
    again.close()
    last = _open(store, None)
    kept = last.start()
    assert kept["unsaved"] == 0 and not last.notices and last.annotator == "anna"
    for name in ("markers", "groupings", "regions"):
        assert kept[name] == told[name], name
    last.close()


def test_a_save_that_died_before_it_was_noted_is_not_done_twice(store):
    session = _open(store)
    page = session.take_page(False)["page"]
    session.do(page, {"do": "rename", "key": "cell_type", "name": "CD3", "to": "T"})
    session.log.saved = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        session.save(page)
    session.close()
    again = _open(store)
    assert again.start()["unsaved"] == 0 and not again.notices and "T" in again.groups["cell_type"].names
    again.close()


def test_pages_take_turns(store):
    session = _open(store)
    first = session.take_page(False)["page"]
    with pytest.raises(PageTaken, match="taken over"):
        session.take_page(False)
    second = session.take_page(True)["page"]
    with pytest.raises(PageTaken):
        session.do(first, _label([0], 5))
    session.do(second, _label([0], 5))
    session.close()


@pytest.mark.parametrize(
    "step, message",
    [
        (_label([0], 6), "state from 0 to 5"),
        (_label([], 5), "needs rows"),
        (_label([10**6], 5), "no cell 1000000"),
        (_label([-1], 5), "no cell -1"),
        (_label([0], 5, marker="CD4"), "no marker 'CD4'"),
        (_label([0], 5, "gold:anna"), "was not drawn for evaluation"),
        (_label([0], 5, "gold:../x"), "use letters, digits"),
        (_label([0], 5, "nimbus"), "no labels 'nimbus'"),
        ({"do": "threshold", "marker": "CD3", "value": 2}, "no step of a review"),
        ({"do": "annotator", "name": "a b"}, "use letters, digits"),
        ({"do": "merge", "key": "cell_type", "names": ["CD3"], "into": "x"}, "two or more"),
        ({"do": "fly"}, "no step of a review"),
        ({}, "no step of a review"),
    ],
)
def test_steps_that_cannot_be_done_change_nothing(store, step, message):
    session = _open(store)
    page = session.take_page(False)["page"]
    before = session.log.path.read_bytes(), session.start()
    with pytest.raises((ValueError, KeyError, IndexError), match=message):
        session.do(page, step)
    assert (session.log.path.read_bytes(), session.start()) == before
    session.close()


def test_cells_of_another_table_are_counted(store):
    session = _open(store)
    session.do(session.take_page(False)["page"], _label([0, 1, 2], 5))
    session.close()
    lines = session.log.path.read_text()
    session.log.path.write_text(re.sub(r'("simulated|"[\w]+"): \[(\d+),', r"\1: [999999,", lines))
    again = _open(store)
    assert "labels 1 cells that this table does not have" in again.notices[0]
    assert (again.labels("gold_training", "CD3") == 5).sum() == 2
    again.close()


def test_read_only_stores_are_reviewed_without_keeping(store, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    session = _open(store)
    page = session.take_page(False)["page"]
    assert (
        "cannot be written to" in session.start()["readonly"]
        and "nothing that is done here is kept" in session.notices[0]
    )
    assert session.do(page, _label([0], 5))["unsaved"] == 1
    with pytest.raises(ValueError, match="nothing can be saved"):
        session.save(page)
    assert not session.log.path.exists()
    session.close()


def test_data_in_memory_are_saved_into_their_table(store):
    from spatialdata import SpatialData

    sdata = read_zarr(store)
    held = SpatialData(images=dict(sdata.images), labels=dict(sdata.labels), tables=dict(sdata.tables))
    session = Session(held, "table", "nimbus", "anna")
    page = session.take_page(False)["page"]
    session.do(page, _label([0], 5))
    session.save(page)
    assert held["table"].layers["gold_training"][0, 0] == 1
    session.close()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s["table"].layers.pop("nimbus"), "no layer 'nimbus'"),
        (lambda s: s["table"].layers["nimbus"].fill(np.nan), "must hold scores"),
        (lambda s: s.tables.__delitem__("table"), "No table 'table'"),
        (lambda s: [s.images.pop(name) for name in list(s.images)], "image"),
        (lambda s: s["table"].obsm.pop("spatial"), "places of cells"),
    ],
)
def test_what_cannot_be_reviewed_is_told(store, change, message):
    sdata = read_zarr(store)
    change(sdata)
    with pytest.raises((ValueError, KeyError), match=message):
        Session(sdata, "table", "nimbus", None)


def _serve(store):
    code = "from nimbus_sd.cli import app; app()"
    command = [sys.executable, "-u", "-c", code, "review", str(store), "--no-browser", "--annotator", "anna"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    address = next(found for line in process.stdout if (found := re.search(r"(http://\S+)/\?token=(\S+)", line)))

    def call(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address[1] + path, data, {"X-Token": address[2]})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    return process, call


@pytest.mark.slow
def test_a_kill_loses_at_most_the_click_in_flight(store):
    rng, answered, rows = random.Random(0), [], count()
    for _ in range(3):
        process, call = _serve(store)
        told = call("/api/start")
        # A click whose answer never came may have been kept.
        assert told["unsaved"] - len(answered) in (0, 1)
        answered = list(range(told["unsaved"]))
        rows = count(len(answered))
        page = call("/api/page", {"take_over": True})["page"]
        end = time.monotonic() + rng.uniform(0.1, 0.6)
        killer = subprocess.Popen(
            [sys.executable, "-c", f"import os, time; time.sleep({rng.uniform(0.2, 0.7)}); os.kill({process.pid}, 9)"]
        )
        while True:
            try:
                row = next(rows)
                call("/api/do", {"page": page, "do": _label([row], 1 + row % 5)})
                answered.append(row)
            except OSError:
                break
        killer.wait()
        process.wait()
        assert end
    process, call = _serve(store)
    assert call("/api/start")["unsaved"] - len(answered) in (0, 1) and len(answered) > 3
    process.kill()
    process.wait()
    session = _open(store)
    assert session.labels("gold_training", "CD3")[: len(answered)].tolist() == [1 + row % 5 for row in answered]
    session.close()


@pytest.mark.slow
def test_what_annotators_settled_stays_settled(store):
    session = _open(store)
    page = session.take_page(False)["page"]
    session.do(page, {"do": "draw", "n": 1})
    row = int(np.flatnonzero(session.adata.obs["evaluation"])[0])
    for into, state in (("gold:anna", 5), ("gold:ben", 1), ("gold", 4)):
        session.do(page, _label([row], state, into))
    assert session.judging()["disputed"] == [{"row": row, "marker": "CD3", "states": {"anna": 5, "ben": 1}}]
    session.save(page)
    session.close()
    again = _open(store)
    again.save(again.take_page(False)["page"])
    again.close()
    assert read_zarr(store)["table"].layers["gold"][row, 0] == 0.75
