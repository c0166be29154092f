"""What markers learn from clicks, and which cell comes next."""

from __future__ import annotations

import re
import threading
import time
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns
from nimbus_sd._review import markers

N = 600


@pytest.fixture
def table():
    """Scores of two regions whose true line is at 0.3."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, (N, 2)).astype(np.float32)
    region = np.repeat(["a", "b"], N // 2)
    obs = pd.DataFrame({"region": region, "instance_id": np.arange(N)}, index=np.arange(N).astype(str))
    adata = ad.AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD8"]), layers={"nimbus": scores})
    return adata, (scores[:, 0] > 0.3).astype(np.float32)


def _nothing():
    return np.full(N, np.nan, np.float32)


def test_a_line_is_that_of_adapt_and_without_labels_nothing_moves(table):
    adata, truth = table
    none = markers.learn(adata, "nimbus", "CD3", _nothing())
    assert none == {"slope": 1.0, "offset": 0.0, "labels": 0, "positives": 0, "learned": ""}
    given = _nothing()
    given[::30] = truth[::30]
    found = markers.learn(adata, "nimbus", "CD3", given)
    adata.layers["gold_training"] = np.stack([given, _nothing()], axis=1)
    ns.tl.adapt(adata)
    line = adata.varm["nimbus_adapted"].loc["CD3"]
    assert (found["slope"], found["offset"], found["labels"]) == (line["slope"], line["offset"], 20)
    moved = markers.shown(adata.layers["nimbus"][:, 0], found["slope"], found["offset"])
    np.testing.assert_allclose(moved, adata.layers["nimbus_adapted"][:, 0], atol=1e-6)
    place = float(re.fullmatch(r"a score of (0\.\d\d) counts as 0\.50, by 20 cells", found["learned"])[1])
    assert markers.shown(np.float32([place]), found["slope"], found["offset"])[0] == pytest.approx(0.5, abs=0.03)


def test_few_labels_are_told(table):
    adata, _ = table
    given = _nothing()
    given[:6] = 1
    assert markers.learn(adata, "nimbus", "CD3", given)["learned"].endswith("too few yet: 6 positive, 0 negative")


def test_share_doubt_and_histogram_by_hand():
    values = np.array([0.1, 0.3, 0.5, 0.8, np.nan], np.float32)
    told = markers.describe(np.sort(values), 0.5)
    assert (told["share"], told["doubt"]) == (0.5, 0.5)
    assert sum(told["histogram"]) == 4 and told["histogram"][20] == 1
    assert markers.describe(np.sort(values[4:]), 0.5)["share"] is None


def test_the_next_cell_is_doubtful_new_and_not_of_a_region_for_evaluation(table):
    adata, truth = table
    adata.obs["evaluation"] = adata.obs["region"] == "b"
    given, after = _nothing(), []
    for _ in range(12):
        item = markers.learn(adata, "nimbus", "CD3", given)
        row, reason = markers.next_doubtful(adata, "nimbus", "CD3", item, given, after)
        moved = markers.shown(adata.layers["nimbus"][:, 0], item["slope"], item["offset"])
        assert adata.obs["region"].iloc[row] == "a" and 0.25 <= moved[row] <= 0.75 and row not in after
        assert reason == ("nearest to the learned line" if item["labels"] else "uncertain")
        after.append(row)
        given[row] = truth[row]


def test_what_is_asked_teaches_more_than_chance(table):
    """After as many labels, calls are closer to the truth than those that learned from cells drawn at random."""
    adata, truth = table

    def wrong(given):
        line = markers.learn(adata, "nimbus", "CD3", given)
        return ((markers.shown(adata.layers["nimbus"][:, 0], line["slope"], line["offset"]) >= 0.5) != truth).mean()

    asked = _nothing()
    for _ in range(15):
        item = markers.learn(adata, "nimbus", "CD3", asked)
        row, _ = markers.next_doubtful(adata, "nimbus", "CD3", item, asked, [])
        asked[row] = truth[row]
    chance = []
    for seed in range(10):
        given, rows = _nothing(), np.random.default_rng(seed).choice(N, 15, replace=False)
        given[rows] = truth[rows]
        chance.append(wrong(given))
    assert wrong(asked) < np.mean(chance) and wrong(asked) < wrong(_nothing()) / 2


def test_cells_that_silver_contradicts_and_none_that_is_left(table):
    adata, _ = table
    adata.layers["nimbus"][:] = 0.05
    item = markers.learn(adata, "nimbus", "CD3", _nothing())
    assert markers.next_doubtful(adata, "nimbus", "CD3", item, _nothing(), []) == (
        None,
        "No doubtful cell of CD3 is left.",
    )
    adata.layers["silver"] = np.zeros((N, 2), np.float32)
    adata.layers["silver"][7, 0] = 1
    assert markers.next_doubtful(adata, "nimbus", "CD3", item, _nothing(), []) == (7, "disagrees with silver")


def test_flags_are_words(table):
    adata, _ = table
    adata.layers["nimbus"][:, 1] = np.where(np.arange(N) < 100, 0.99, 0.01)
    flags = markers.flags(adata, "nimbus")
    assert flags["CD3"].startswith("look: no separation") and flags["CD8"] == ""


def test_limits_moved_back_tell_what_moved_scores_do():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.beta(0.4, 0.6, 5000), [0, 1, 0, np.nan]]).astype(np.float32)
    for slope, offset in ((1.0, 0.0), (1.7, -0.8), (0.4, 6.0), (8.0, 3.0)):
        moved = markers.shown(scores, slope, offset)
        there = moved[np.isfinite(moved)]
        told = markers.describe(np.sort(scores), 0.3, slope, offset)
        assert told["share"] == pytest.approx((there >= 0.3).mean(), abs=1e-3)
        assert told["doubt"] == pytest.approx(((there >= 0.25) & (there <= 0.75)).mean(), abs=1e-3)
        assert np.abs(np.array(told["histogram"]) - np.histogram(there, 40, (0, 1))[0]).sum() <= 4


def test_threads_that_collect_warnings_leave_the_filters_as_they_were():
    before, lists = list(warnings.filters), [[] for _ in range(8)]

    def work(notices):
        for _ in range(20):
            with markers.told(notices):
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(notices,)) for notices in lists]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert warnings.filters == before
