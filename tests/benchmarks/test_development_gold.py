"""The development gold standard: what was judged, and how it is joined and evaluated."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmark_module import module

REAL = Path(__file__).parents[3] / "shared" / "data"


gold = module("development_gold")


def test_at_least_500_states_of_10_channels_were_judged_twice():
    table = pd.read_csv(gold.GOLD)
    assert len(table) >= 500 and table.groupby(["tissue", "channel"]).ngroups >= 10
    assert not table.duplicated(["tissue", "channel", "instance_id"]).any()
    assert table[["pass1", "pass2"]].isin([0, 0.25, 0.5, 0.75, 1]).all(axis=None)
    assert (table["draw"].value_counts() >= len(table) // 2).all()


def test_agreement_counts_only_what_both_determine():
    table = pd.DataFrame({"pass1": [1, 1, 0, 0, 0.5, 0.75], "pass2": [1, 0, 0, 0.25, 1, 0.75]})
    found = gold.agreement(table)
    assert found["states"] == 6 and found["determined by both"] == 5 and found["plain in both"] == 3
    assert found["same"] == pytest.approx(0.8)


def test_passes_are_joined_cell_by_cell_whatever_their_order(tmp_path):
    cells = pd.DataFrame({"tissue": "t", "channel": "c", "instance_id": [7, 8, 9], "draw": "even"})
    for number, order in ((1, [7, 8, 9]), (2, [9, 7, 8])):
        index = cells.set_index("instance_id").loc[order].reset_index()
        index.assign(sheet=0, panel=[1, 2, 3]).drop(columns="draw").to_csv(tmp_path / f"i{number}.csv", index=False)
        states = [{7: 1.0, 8: 0.0, 9: 0.5}[cell] for cell in order]
        pd.DataFrame({"sheet": 0, "panel": [1, 2, 3], "state": states}).to_csv(tmp_path / f"p{number}.csv", index=False)
    found = gold.collect(
        [tmp_path / "i1.csv", tmp_path / "i2.csv"], [[tmp_path / "p1.csv"], [tmp_path / "p2.csv"]], cells
    )
    assert found["pass1"].to_list() == found["pass2"].to_list() == [1.0, 0.0, 0.5]


def test_mean_f1_is_over_channels_with_a_positive_cell():
    table = pd.DataFrame(
        {
            "tissue": "t",
            "channel": ["a"] * 4 + ["b"] * 2 + ["none"] * 2,
            "positive": [True, True, False, False, True, False, False, False],
            "mine": [True, False, False, False, True, False, True, True],
        }
    )
    text = gold._mean_f1(table, ["mine"])["mine"]
    assert text.startswith(f"{(2 / 3 + 1) / 2:.2f} [")


def test_erosion_takes_pixels_off_the_outline():
    labels = np.zeros((9, 9), int)
    labels[1:8, 1:8] = 3
    assert (gold.erosion(labels, 2) == 3).sum() == 9


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")
def test_judged_cells_and_channels_exist_in_the_tissue():
    table = pd.read_csv(gold.GOLD)
    for tissue, part in table.groupby("tissue"):
        sdata = gold.read(tissue, REAL)
        ids = np.unique(next(iter(sdata.labels.values())).to_numpy())
        names = next(iter(sdata.images.values())).c.values
        assert part["instance_id"].isin(ids).all() and part["channel"].isin(names).all()
