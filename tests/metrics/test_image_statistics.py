import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nimbus_sd.metrics import image_statistics
from nimbus_sd.metrics.image_statistics import describe, outside

NAN = float("nan")


def table(expression, factors, key="nimbus"):
    expression = np.asarray(expression, np.float32)
    names = [f"c{i}" for i in range(expression.shape[1])]
    return AnnData(
        np.zeros(expression.shape, np.float32),
        var=pd.DataFrame(index=names),
        layers={"integrated_expression": expression},
        varm={f"{key}_normalization": pd.DataFrame({"factor": factors}, index=names)},
    )


def test_counted_by_hand():
    cells = np.array([0.0] * 10 + [5.0] * 50 + [10.0] * 30 + [40.0] * 10)
    found = image_statistics(table(np.stack([cells, cells], axis=1), [20.0, NAN]))
    clipped = np.minimum(cells / 20, 1)
    assert list(found.columns) == ["median", "q10", "q99", "zeros", "cv"]
    assert found.loc["c0"].to_list() == pytest.approx(
        [0.25, np.quantile(clipped, 0.1), 1.0, 0.1, clipped.std() / clipped.mean()]
    )
    assert found.loc["c1"].isna().all()


def test_does_not_depend_on_the_unit_of_intensity_or_on_missing_cells():
    cells = np.random.default_rng(0).gamma(1, 5, (200, 1))
    plain = image_statistics(table(cells, [30.0]))
    pd.testing.assert_frame_equal(plain, image_statistics(table(cells * 100, [3000.0], "other"), "other"), rtol=1e-5)
    with_gaps = np.concatenate([cells, np.full((7, 1), np.nan)])
    pd.testing.assert_frame_equal(plain, image_statistics(table(with_gaps, [30.0])))


def test_too_few_cells_or_no_signal():
    assert all(np.isnan(value) for value in describe(np.ones(19)).values())
    dark = describe(np.zeros(20))
    assert dark["zeros"] == 1 and np.isnan(dark["cv"])


def test_what_is_missing_is_named():
    adata = table(np.ones((20, 1)), [1.0])
    with pytest.raises(KeyError, match=r"no varm\['old_normalization'\]"):
        image_statistics(adata, "old")
    del adata.layers["integrated_expression"]
    with pytest.raises(KeyError, match="integrated_expression"):
        image_statistics(adata)


def test_outside_names_the_statistic_and_its_false_alarms():
    ranges = {
        "median": {"low": 0.1, "high": 0.5, "false_alarm": 0.0125},
        "cv": {"low": 0.2, "high": 6.0, "false_alarm": 0.02},
        "unheard": {"low": 0.0, "high": 0.0, "false_alarm": 0.0},
    }
    assert outside({"median": 0.5, "cv": 0.2}, ranges) == []
    assert outside({"median": NAN, "cv": 6.5}, ranges) == ["cv 6.5 is above 6 (2.0% of good images are)"]
    assert len(outside({"median": 0.0, "cv": 0.1}, ranges)) == 2
