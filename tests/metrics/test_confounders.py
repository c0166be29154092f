"""Confounders, against loops over cells."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nimbus_sd.metrics import confounders, neighbours
from nimbus_sd.metrics.neighbours import count_around

NAMES = ["cell_size", "heterogeneity", "rarity", "sparsity", "density", "spill_over"]


def table(n=60, m=3, seed=0, side=100.0):
    rng = np.random.default_rng(seed)
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1, np.nan], (n, m))
    adata = AnnData(
        obs=pd.DataFrame({
            "region": pd.Categorical(rng.choice(["a", "b"], n)),
            "area": rng.uniform(10, 90, n),
            "perimeter": rng.integers(20, 40, n).astype(float),
        }, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=list("XYZUVW")[:m]),
        layers={"gold": gold, "integrated_expression": rng.lognormal(1, 1, (n, m)).astype(np.float32)},
        obsm={"spatial": rng.uniform(0, side, (n, 2))},
        uns={"nimbus": {"pixel_size": {"a": 0.5, "b": 0.25}, "wrote": []}},
    )  # fmt: skip
    edges = np.triu(rng.integers(0, 9, (n, n)) * (rng.random((n, n)) < 0.05), 1)
    adata.obsp["boundary"] = sparse.csr_matrix((edges + edges.T).astype(np.float32))
    return adata


def naive(adata, radius, likely=True):
    gold, place = adata.layers["gold"], adata.obsm["spatial"]
    positive = (gold == 1) | (likely & (gold == 0.75))
    judged = positive | (gold == 0) | (likely & (gold == 0.25))
    region = adata.obs["region"].to_numpy()
    out = {name: np.full(adata.shape, np.nan) for name in NAMES}
    for i in range(adata.n_obs):
        same = region == region[i]
        near = same & (np.hypot(*(place - place[i]).T) <= radius[region[i]]) & (np.arange(adata.n_obs) != i)
        out["cell_size"][i], out["density"][i] = adata.obs["area"].iloc[i], near.sum()
        for j in range(adata.n_vars):
            values = adata.layers["integrated_expression"][same, j].astype(float)
            out["heterogeneity"][i, j] = np.std(values) / np.mean(values)
            if judged[same, j].any():
                out["rarity"][i, j] = positive[same & judged[:, j], j].mean()
                out["sparsity"][i, j] = (near & positive[:, j]).sum()
                shared = adata.obsp["boundary"].toarray()[i] @ positive[:, j]
                out["spill_over"][i, j] = shared / adata.obs["perimeter"].iloc[i]
    return out


@pytest.mark.parametrize("likely", [True, False])
def test_all_of_them(likely):
    adata = table()
    found = confounders(adata, radius=20, likely=likely)
    expected = naive(adata, {"a": 20, "b": 20}, likely)
    assert list(found) == NAMES
    for name, one in found.items():
        assert one.index.equals(adata.obs_names) and one.columns.equals(adata.var_names)
        assert (one.dtypes == np.float32).all()
        np.testing.assert_allclose(one, expected[name], rtol=1e-5, err_msg=name)


def test_radius_in_um_follows_each_regions_pixel_size():
    adata = table(seed=1)
    found = confounders(adata, radius=8, unit="um")
    expected = naive(adata, {"a": 16, "b": 32})
    for name in ("density", "sparsity"):
        np.testing.assert_array_equal(found[name], expected[name])
    adata.uns["nimbus"] = {"pixel_size": {"a": 0.5}}
    with pytest.raises(KeyError, match=r"regions \['b'\] is not noted.*unit='px'"):
        confounders(adata, unit="um")
    adata.uns["cell_features"] = {"pixel_size": {"b": 0.25}}
    np.testing.assert_array_equal(confounders(adata, radius=8, unit="um")["density"], expected["density"])


@pytest.mark.filterwarnings("ignore:.*divide:RuntimeWarning")
def test_what_is_not_known_is_nan():
    adata = table(seed=2)
    of_a = (adata.obs["region"] == "a").to_numpy()
    adata.layers["gold"][of_a, 0] = np.nan
    adata.layers["integrated_expression"][of_a, 1] = np.nan
    adata.layers["integrated_expression"][~of_a, 1] = 0
    adata.obsm["spatial"][3] = np.nan
    adata.obs.loc["c4", "perimeter"], adata.obs.loc["c5", "region"] = 0, np.nan
    found = confounders(adata, radius=20)
    here = of_a & (np.arange(60) != 5)
    for name in ("rarity", "sparsity", "spill_over"):
        assert found[name].loc[here, "X"].isna().all() and found[name].loc[~of_a, "X"].notna().sum() > 20
    assert found["heterogeneity"]["Y"].isna().all()
    assert found["density"].loc["c3"].isna().all() and found["sparsity"].loc["c3"].isna().all()
    assert found["spill_over"].loc["c4"].isna().all()
    assert all(found[name].loc["c5"].isna().all() for name in NAMES[1:])
    # A cell without a place is nobody's neighbour.
    expected = naive(adata[[i for i in range(60) if i not in (3, 5)]], {"a": 20, "b": 20})["density"]
    np.testing.assert_array_equal(found["density"].drop(["c3", "c5"]), expected)
    del adata.obsp["boundary"]
    assert confounders(adata, radius=20)["spill_over"].isna().all(axis=None)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 99), st.sampled_from([1, 7, 2**22]))
def test_neighbours(n, radius, seed, pairs):
    """On a grid, where cells share a place and distances equal the radius."""
    rng = np.random.default_rng(seed)
    place, flags = rng.integers(0, 8, (n, 2)).astype(float), rng.random((n, 3)) < 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_PAIRS", pairs)
        everyone, flagged = count_around(place, flags, radius)
    near = ((place[:, None] - place[None]) ** 2).sum(axis=2) <= radius**2
    np.fill_diagonal(near, False)
    np.testing.assert_array_equal(everyone, near.sum(axis=1))
    np.testing.assert_array_equal(flagged, near.astype(int) @ flags)


def test_what_all_channels_share_takes_one_column():
    found = confounders(table(), radius=20)
    for name in ("cell_size", "density"):
        assert found[name].to_numpy().strides[1] == 0


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"radius": 0}, ValueError, "above 0"),
        ({"radius": np.nan}, ValueError, "above 0"),
        ({"unit": "mm"}, ValueError, "'px' or 'um'"),
        ({"truth": "silver"}, KeyError, "no layer 'silver'"),
        ({"region_key": "fov"}, KeyError, "no column 'fov'"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        confounders(table(), **options)


def test_what_a_table_must_have():
    for place in ("obsm/spatial", "layers/integrated_expression", "obs/area"):
        adata = table()
        where, key = place.split("/")
        del getattr(adata, where)[key]
        with pytest.raises(KeyError, match=key):
            confounders(adata)
    adata = table()
    adata.layers["gold"][:] = np.nan
    with pytest.raises(ValueError, match="no truth"):
        confounders(adata)
