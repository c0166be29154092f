"""A small tissue of two regions with ids that have gaps, its table, and an assignment matrix."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.models import TableModel

CHANNELS = ("CD3", "CD20", "Ki 67/x")
TYPES = {"T": (1, 0, 0.5), "B": (0, 1, 0.5), "other": (0, 0, 0.5)}


def table_of(cells: dict[str, list[int]], channels=CHANNELS, **layers) -> AnnData:
    """Cells of each region, without values."""
    regions = [region for region, ids in cells.items() for _ in ids]
    ids = np.concatenate([np.array(one, np.int64) for one in cells.values()])
    adata = AnnData(
        np.zeros((len(ids), len(channels)), np.float32),
        obs=pd.DataFrame(
            {"region": pd.Categorical(regions), "instance_id": ids}, index=[f"c{i}" for i in range(len(ids))]
        ),
        var=pd.DataFrame(index=list(channels)),
        layers=layers,
    )
    return TableModel.parse(
        adata, region=sorted(cells), region_key="region", instance_key="instance_id", overwrite_metadata=True
    )


@pytest.fixture(name="table_of")
def _table_of():
    return table_of


@pytest.fixture
def adata() -> AnnData:
    """Six cells of two regions, with the same ids in both; the last one has no type."""
    found = table_of({"a": [1, 5, 2**40], "b": [1, 5, 9]})
    found.obs["cell_type"] = pd.Categorical(["T", "B", "other", "T", "B", None])
    return found


@pytest.fixture
def matrix() -> pd.DataFrame:
    return pd.DataFrame.from_dict(TYPES, orient="index", columns=list(CHANNELS))
