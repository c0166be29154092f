"""Agreement by hand and by textbook; consensus and disputes."""

import numpy as np
import pytest

import nimbus_sd as ns

NAN = np.nan


def annotated(table_of, *columns):
    """One channel; a layer for each annotator."""
    adata = table_of({"a": list(range(1, len(columns[0]) + 1))}, ("CD3", "CD8"))
    names = [f"a{i}" for i in range(len(columns))]
    for name, column in zip(names, columns, strict=True):
        adata.layers[name] = np.full(adata.shape, NAN, np.float32)
        adata.layers[name][:, 0] = column
    return adata, names


@pytest.mark.parametrize(
    "columns, figures",
    [
        # Both say yes 20 times and no 15; one alone says yes 5 times, the other 10: kappa is 0.4.
        (
            [
                [*[1] * 20, *[0.75] * 5, *[0] * 10, *[0.25] * 15, NAN, 1],
                [*[1] * 20, *[0] * 5, *[0.75] * 10, *[0] * 15, 1, NAN],
            ],
            [50, 0.7, 0.4],
        ),
        # Negative, undetermined, positive: cells (3,0,0), (0,3,0), (0,0,3), (2,1,0). Observed (1+1+1+1/3)/4 = 5/6,
        # expected (5/12)^2 + (4/12)^2 + (3/12)^2 = 50/144, so kappa (5/6 - 25/72) / (47/72) = 35/47.
        ([[0, 0.5, 1, 0], [0.25, 0.5, 1, 0], [0, 0.5, 0.75, 0.5]], [4, 0.75, 35 / 47]),
        ([[0, 0], [0, 0.25]], [2, 1, NAN]),
    ],
    ids=["Cohen", "Fleiss", "one state"],
)
def test_kappa_by_hand(table_of, columns, figures):
    adata, names = annotated(table_of, *columns)
    table = ns.labels.agreement(adata, names)
    assert table.index.to_list() == ["CD3", "all"]
    for row in table.index:
        assert table.loc[row].to_list() == pytest.approx(figures, nan_ok=True)


def test_consensus_of_three(table_of):
    adata, names = annotated(
        table_of,
        [1, 1, 1, 0, 1, 0.75, NAN, NAN, 0.25],
        [1, 1, 0, 0.5, 0.75, 0.75, 1, NAN, 0.25],
        [1, 0, 0.5, 1, 0.75, 0, 0, NAN, NAN],
    )
    disputed = ns.labels.consensus(adata, names)
    expected = [1, 1, 0.5, 0.5, 0.75, 0.75, 0.5, NAN, 0.25]
    np.testing.assert_array_equal(adata.layers["gold"][:, 0], expected)
    assert np.isnan(adata.layers["gold"][:, 1]).all()
    assert disputed["instance_id"].to_list() == [2, 3, 4, 6, 7] and set(disputed["channel"]) == {"CD3"}
    assert disputed["label"].to_list() == [1, 0.5, 0.5, 0.75, 0.5]
    assert disputed[names].iloc[1].to_list() == [1, 0, 0.5]


def test_disputes_are_settled_through_a_file(table_of, tmp_path):
    adata, names = annotated(table_of, [1, 1], [1, 0])
    disputed = ns.labels.consensus(adata, names)
    disputed["label"] = 0.25
    disputed.to_csv(tmp_path / "settled.csv", index=False)
    ns.labels.from_csv(adata, tmp_path / "settled.csv")
    assert adata.layers["gold"][:, 0].tolist() == [1, 0.25]


def test_bad_layers(table_of):
    adata, names = annotated(table_of, [1, NAN], [NAN, 1])
    with pytest.raises(ValueError, match="at least two annotators"):
        ns.labels.agreement(adata, names[:1])
    with pytest.raises(ValueError, match="each once"):
        ns.labels.consensus(adata, [names[0]] * 2)
    with pytest.raises(ValueError, match="No cell is judged in each"):
        ns.labels.agreement(adata, names)
    with pytest.raises(ValueError, match="of an annotator"):
        ns.labels.consensus(adata, names, key_added=names[0])
    adata.layers["a0"][0, 0] = 0.3
    with pytest.raises(ValueError, match=r"layers\['a0'\] has the label"):
        ns.labels.consensus(adata, names)


def test_consensus_of_cells_for_training_is_not_evaluation(table_of):
    adata, names = annotated(table_of, [1, 1], [1, 0])
    adata.obs["evaluation"] = False
    with pytest.raises(ValueError, match="not drawn for evaluation"):
        ns.labels.consensus(adata, names)
    assert "gold" not in adata.layers
    ns.labels.consensus(adata, names, key_added="gold_training")
