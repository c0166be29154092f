"""The picture of silver labels says what the table says."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

import nimbus_sd as ns


def test_signs_order_and_frames(annotate):
    kind = np.repeat(["T", "B", "other"], 20)
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (60, 3)) + 10 * np.stack([kind == "T", kind == "B", kind == "B"], axis=1)
    adata = annotate(range(1, 61), ["a"] * 60, ("CD3", "CD20", "CD8"), integrated_expression=values)
    adata.obs["cell_type"] = kind
    matrix = pd.DataFrame({"CD3": [1, 0, 0], "CD20": [0, 1, 0.5], "CD8": [1, 0, 0]}, ["T", "B", "other"])
    ns.labels.silver(adata, matrix)
    ax = ns.pl.check_silver(adata)
    columns = [tick.get_text() for tick in ax.get_xticklabels()]
    rows = [tick.get_text() for tick in ax.get_yticklabels()]
    assert columns == ns.labels.check_silver(adata).index.to_list() and columns[0] == "CD8"
    signs = {
        (rows[round(y)], columns[round(x)]): text.get_text() for text in ax.texts for x, y in [text.get_position()]
    }
    assert signs["T", "CD3"] == "+" and signs["B", "CD3"] == "\N{MINUS SIGN}" and signs["other", "CD20"] == "?"
    assert len(signs) == 9
    framed = {
        (rows[round(patch.get_y() + 0.5)], columns[round(patch.get_x() + 0.5)])
        for patch in ax.patches
        if isinstance(patch, Rectangle)
    }
    assert framed == {("B", "CD8"), ("T", "CD8")}


def test_without_labels(annotate):
    adata = annotate([1], ["a"], integrated_expression=np.ones((1, 2)), silver=np.full((1, 2), np.nan))
    adata.obs["cell_type"] = "T"
    with pytest.raises(ValueError, match="labels no cell"):
        ns.pl.check_silver(adata)
