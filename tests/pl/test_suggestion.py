"""The picture of the number of metaclusters."""

import numpy as np
import pytest
from anndata import AnnData

from nimbus_sd.pl import metacluster_suggestion


def table(**suggestion):
    entry = {"tool": "flowsom", "codes": np.zeros((4, 2))} | ({"suggestion": suggestion} if suggestion else {})
    return AnnData(np.zeros((3, 2)), uns={"som": entry})


def test_the_curve_the_suggestion_and_what_does_about_as_well():
    numbers, silhouette = np.arange(2, 8), np.array([0.3, 0.45, 0.5, 0.49, 0.2, 0.481])
    ax = metacluster_suggestion(table(n_metaclusters=numbers, silhouette=silhouette, suggested=4), "som")
    curve, point = ax.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.stack([numbers, silhouette], axis=1))
    assert point.get_xydata().tolist() == [[4, 0.5]]
    assert sorted(patch.get_x() + 0.5 for patch in ax.patches) == [4, 5, 7]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"suggested: 4", "about as well"}


def test_without_a_suggestion_it_says_why():
    with pytest.raises(KeyError, match=r"no uns\['x'\] of `tl.flowsom`"):
        metacluster_suggestion(table(), "x")
    with pytest.raises(KeyError, match="`n_metaclusters` was given"):
        metacluster_suggestion(table(), "som")
