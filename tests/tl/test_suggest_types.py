import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns

pytestmark = pytest.mark.filterwarnings("ignore:The scores of .* are the same")

TABLE = pd.DataFrame(
    {"parent": ["", "Immune", "Immune", ""], "CD45": ["+", "", "", ""], "CD3": ["", "+", "", ""],
     "CD20": ["", "", "+", ""], "PanCK": ["", "", "", "+"]},
    index=["Immune", "T", "B", "Epithelial"],
)  # fmt: skip
T, B, IMMUNE, EPITHELIAL, NOTHING = [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]


def clusters(**members):
    rows = [row for cells in members.values() for row in cells]
    adata = AnnData(layers={"nimbus": np.array(rows, np.float32)})
    adata.var_names = ["CD45", "CD3", "CD20", "PanCK"]
    names = [name for name, cells in members.items() for _ in cells]
    adata.obs["cluster"] = pd.Categorical(names, categories=list(members))
    return adata


def test_clusters_get_the_deepest_type_that_most_of_their_cells_have():
    adata = clusters(
        pure=[T] * 4,
        lymphoid=[T] * 2 + [B] * 2 + [IMMUNE],
        mixed=[T] * 2 + [EPITHELIAL] * 2,
        blank=[NOTHING] * 3 + [B],
    )
    found = ns.tl.suggest_types(adata, "cluster", TABLE)
    assert found["type"].to_dict() == {"pure": "T", "lymphoid": "Immune", "mixed": "ambiguous", "blank": "unassigned"}
    assert found["share"].to_list() == [1, 1, 1, 0.75]
    assert found["cells"].to_list() == [4, 5, 4, 4]
    assert found["others"].to_list() == ["", "", "T 50%, Epithelial 50%", "B 25%"]
    assert found["reason"].to_list()[:2] == ["CD45+ CD3+", "CD45+"]
    assert found["probability"].isna().to_list() == [False, False, True, True]
    assert found.index.name == "cluster"


def test_clusters_whose_cells_without_a_type_are_mostly_ambiguous():
    both = [1, 1, 1, 1]
    adata = clusters(unclear=[both] * 6 + [NOTHING] * 2 + [T] * 2, blank=[both] * 2 + [NOTHING] * 2)
    found = ns.tl.suggest_types(adata, "cluster", TABLE)
    assert found["type"].to_list() == ["ambiguous", "unassigned"]
    assert found["share"].to_list() == [0.8, 1]
    assert found["reason"].to_list() == [
        "20% of the cells have a type, 60% are ambiguous",
        "0% of the cells have a type",
    ]
    assert found["others"].to_list() == ["T 20%, unassigned 20%", "ambiguous 50%"]


def test_the_probability_is_the_mean_over_all_cells_of_the_cluster():
    adata = clusters(one=[[1, 0.9, 0, 0], [1, 0.7, 0, 0], [1, 0.2, 0, 0]])
    found = ns.tl.suggest_types(adata, "cluster", TABLE).loc["one"]
    assert found["type"] == "T" and found["share"] == pytest.approx(2 / 3)
    assert found["probability"] == pytest.approx(0.6)
    assert ns.tl.suggest_types(adata, "cluster", TABLE, min_share=0.7).loc["one", "type"] == "Immune"


def test_cells_without_scores_or_cluster_are_left_out():
    adata = clusters(one=[T, [np.nan] * 4, B, T], gone=[[np.nan] * 4])
    adata.obs.loc[adata.obs_names[2], "cluster"] = np.nan
    with pytest.warns(UserWarning, match="2 of 5 cells"):
        found = ns.tl.suggest_types(adata, "cluster", TABLE)
    assert found.loc["one", ["type", "share", "cells"]].to_list() == ["T", 1, 2]
    assert found.loc["gone", ["type", "cells"]].to_list() == ["unassigned", 0]


def test_it_agrees_with_the_types_of_the_cells():
    rng = np.random.default_rng(0)
    adata = clusters(a=rng.random((300, 4)), b=rng.random((300, 4)) ** 3)
    ns.tl.cell_types(adata, TABLE)
    share = pd.crosstab(adata.obs["cluster"], adata.obs["cell_type_nimbus"], normalize="index")
    found = ns.tl.suggest_types(adata, "cluster", TABLE)
    assert found.loc["b", "type"] == "unassigned"
    assert found.loc["b", "share"] == pytest.approx(share.loc["b", ["unassigned", "ambiguous"]].sum())


def test_bad_input():
    adata = clusters(one=[T])
    with pytest.raises(KeyError, match="no column 'leiden'"):
        ns.tl.suggest_types(adata, "leiden", TABLE)
    with pytest.raises(ValueError, match=r"`min_share` is 0\.3"):
        ns.tl.suggest_types(adata, "cluster", TABLE, min_share=0.3)


@pytest.mark.parametrize("name", ["min_share", "min_probability"])
def test_text_for_a_limit(name):
    with pytest.raises(ValueError, match=f"`{name}` is '0.5'; it must be a number in"):
        ns.tl.suggest_types(clusters(one=[T]), "cluster", TABLE, **{name: "0.5"})


def test_numbers_are_no_clusters():
    adata = clusters(one=[T] * 2)
    adata.obs["area"] = [0.5, 1.5]
    with pytest.raises(ValueError, match=r"obs\['area'\] holds numbers such as 0\.5"):
        ns.tl.suggest_types(adata, "area", TABLE)


def test_suggestions_for_numbered_clusters_can_be_the_start_of_metaclusters(no_warning):
    adata = clusters(c0=[T, NOTHING], c1=[B, EPITHELIAL])
    adata.obs["number"] = [0, 0, 1, 1]
    found = ns.tl.suggest_types(adata, "number", TABLE)
    assert found.index.to_list() == ["0", "1"]
    for suggested in (found["type"], found["type"].to_dict()):
        ns.tl.Metaclusters.start(suggested).apply(adata, "number")


def test_suggestions_can_be_the_start_of_metaclusters():
    adata = clusters(c0=[T] * 2, c1=[B] * 2, c2=[T])
    found = ns.tl.suggest_types(adata, "cluster", TABLE)
    assert ns.tl.Metaclusters.start(found["type"].to_dict()).members == {"T": ("c0", "c2"), "B": ("c1",)}
