"""What all tools share: scores and who is told of missing ones, names for results."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from nimbus_sd.tl._inputs import scored_matrix
from nimbus_sd.tl._results import check_key_added, log_overwritten

NAN = np.nan


def table(values, channels=("CD3", "CD8", "CD20")):
    values = values if sparse.issparse(values) else np.asarray(values, np.float32)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(values.shape[0])])
    return AnnData(obs=obs, var=pd.DataFrame(index=list(channels)), layers={"nimbus": values})


def tool(adata, channels=None, **given):
    return scored_matrix(adata, **{"layer": "nimbus", "channels": channels, **given})


def test_all_channels_and_cells_in_order(no_warning):
    scores = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)
    for channels, columns in ((None, [0, 1, 2]), (["CD20", "CD3"], [2, 0]), ("CD8", [1])):
        for adata in (table(scores), table(sparse.csr_matrix(scores))):
            values, used, names = tool(adata, channels)
            np.testing.assert_array_equal(values, scores[:, columns])
            assert values.dtype == np.float32 and values.flags["C_CONTIGUOUS"]
            assert used.tolist() == [True, True] and names == list(adata.var_names[columns])


def test_channels_without_a_score_go_first_then_cells_that_lack_one():
    adata = table([[0.1, NAN, 0.3], [0.4, NAN, NAN], [0.1, np.inf, 0.6], [NAN, NAN, NAN]])
    before = adata.layers["nimbus"].copy()
    with pytest.warns(UserWarning) as caught:
        # Warnings point to the caller of the public function, here `tool`.
        values, used, names = tool(adata)
    np.testing.assert_array_equal(values, np.float32([[0.1, 0.3], [0.1, 0.6]]))
    assert used.tolist() == [True, False, True, False] and names == ["CD3", "CD20"]
    channels, cells, constant = (str(warning.message) for warning in caught)
    assert channels.startswith("Channel(s) 'CD8' of layer 'nimbus' are left out")
    assert cells.startswith("2 of 4 cells are left out") and cells.endswith("'CD3', 'CD20'.")
    assert constant.startswith("Channel(s) 'CD3' of layer 'nimbus' are the same in every cell")
    assert all(warning.filename == __file__ for warning in caught)
    np.testing.assert_array_equal(adata.layers["nimbus"], before)
    with pytest.raises(ValueError, match=r"no score of any cell in channel\(s\) 'CD8'"):
        tool(adata, need_all=True)


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"layer": "nimbsu"}, KeyError, "no layer 'nimbsu'; there are"),
        ({"channels": ["cd8a", "x"]}, KeyError, r"'cd8a', 'x'; there are \['CD3', 'CD8', 'CD20'\]. Did you mean 'CD8'"),
        ({"channels": []}, ValueError, "at least one channel"),
        ({"channels": ["CD3", "CD3"]}, ValueError, "none twice"),
        ({"channels": ["CD20"]}, ValueError, r"no score of any cell in channel\(s\) 'CD20'"),
        ({"channels": ["CD3", "CD8"]}, ValueError, "no cell with a score in each of 'CD3', 'CD8'.*CD3 1, CD8 1"),
        ({"adata": table(np.empty((0, 3)))}, ValueError, "The table has no cells"),
        ({"adata": table([[1, 2, 3]], ("CD3", "CD3", "CD8"))}, ValueError, "more than one channel named 'CD3'"),
    ],
)
def test_what_cannot_be_used(given, error, message):
    with pytest.raises(error, match=message):
        tool(**{"adata": table([[0.1, NAN, NAN], [NAN, 0.2, NAN]]), **given})


def test_names_that_cannot_be_written_are_refused_and_the_longest_is_not(tmp_path):
    adata = table([[1, 2, 3]])
    for name in ("a/b", "", "__own", ".", "_index", "with space", "ä" * 101):
        with pytest.raises(ValueError, match=r"can(not)? be written to disk"):
            check_key_added(adata, name, "leiden")
    check_key_added(adata, "ä" * 100, "leiden")
    adata.obsp[f"{'ä' * 100}_neighbors_connectivities"] = sparse.csr_matrix((1, 1))
    adata.write_zarr(tmp_path / "a.zarr")


def test_names_of_other_things_are_refused_and_own_ones_are_overwritten(caplog):
    adata = table([[1, 2, 3]])
    adata.obs["mine"] = "x"
    also = [("obs", "mine"), ("obs", "mine_node")]
    for name, places, error, message in (
        ("mine", also, ValueError, r"the table has obs\['mine'\], which `tl.leiden` did not make"),
        ("Mine", [("obs", "Mine")], ValueError, r"obs has 'mine'.*upper and lower case"),
        ("gold", [], ValueError, "kept for something else"),
        (3, [], TypeError, "must be a text"),
    ):
        with pytest.raises(error, match=message):
            check_key_added(adata, name, "leiden", places)
    adata.uns["mine"] = {"tool": "leiden"}
    with caplog.at_level("INFO", "nimbus_sd"):
        earlier = check_key_added(adata, "mine", "leiden", also)
        assert earlier == ["uns['mine']", "obs['mine']"]
        log_overwritten(earlier, "leiden")
        log_overwritten(check_key_added(adata, "new", "leiden"), "leiden")
    assert caplog.messages == ["overwrote uns['mine'], obs['mine'] of an earlier `tl.leiden`"]
    with pytest.raises(ValueError, match=r"`tl\.flowsom` did not make"):
        check_key_added(adata, "mine", "flowsom")
