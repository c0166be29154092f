"""The scores that tools work on: which channels and cells are left out, and who is told."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from nimbus_sd.tl._keys import check_key_added, log_overwritten
from nimbus_sd.tl._matrix import scored_matrix

NAN = np.nan


def table(values, channels=("CD3", "CD8", "CD20"), layer="nimbus"):
    values = values if sparse.issparse(values) else np.asarray(values, np.float32)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(values.shape[0])])
    return AnnData(obs=obs, var=pd.DataFrame(index=list(channels)), layers={layer: values})


def tool(*args, **kwargs):
    return scored_matrix(*args, **kwargs)


def test_all_channels_and_cells_in_order(no_warning):
    given = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    values, used, names = tool(table(given), "nimbus", None)
    np.testing.assert_array_equal(values, given.astype(np.float32))
    assert values.dtype == np.float32 and values.flags["C_CONTIGUOUS"]
    assert used.tolist() == [True, True] and names == ["CD3", "CD8", "CD20"]
    values, _, names = tool(table(given), "nimbus", ["CD20", "CD3"])
    np.testing.assert_array_equal(values, given[:, [2, 0]].astype(np.float32))
    assert names == ["CD20", "CD3"]
    assert tool(table(given), "nimbus", "CD8")[2] == ["CD8"]
    np.testing.assert_array_equal(tool(table(sparse.csr_matrix(given)), "nimbus", None)[0], given.astype(np.float32))


def test_channels_without_a_score_go_first_then_cells_that_lack_one():
    adata = table([[0.1, NAN, 0.3], [0.4, NAN, NAN], [0.5, np.inf, 0.6], [NAN, NAN, NAN]])
    before = adata.layers["nimbus"].copy()
    with pytest.warns(UserWarning) as caught:
        values, used, names = tool(adata, "nimbus", None)
    np.testing.assert_array_equal(values, np.float32([[0.1, 0.3], [0.5, 0.6]]))
    assert used.tolist() == [True, False, True, False] and names == ["CD3", "CD20"]
    said = [str(one.message) for one in caught]
    assert said == [
        "Channel(s) 'CD8' of layer 'nimbus' are left out: no cell has a score there.",
        "2 of 4 cells are left out: layer 'nimbus' has no score of them in channel(s) 'CD3', 'CD20'.",
    ]
    assert all(one.filename == __file__ for one in caught)
    np.testing.assert_array_equal(adata.layers["nimbus"], before)
    with pytest.raises(ValueError, match=r"no score of any cell in channel\(s\) 'CD8', which are needed"):
        tool(adata, "nimbus", None, need_all=True)


def test_constant_channels_are_named_and_kept():
    with pytest.warns(UserWarning, match=r"'CD8' of layer 'nimbus' are the same in every cell"):
        values, _, names = tool(table([[0.1, 0.5, 0.3], [0.4, 0.5, 0.6]]), "nimbus", None)
    assert values.shape == (2, 3) and names[1] == "CD8"


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"layer": "nimbsu"}, KeyError, "no layer 'nimbsu'; there are"),
        ({"channels": ["cd8a", "x"]}, KeyError, r"'cd8a' \(near: 'CD8'\), 'x'; there are \['CD3', 'CD8', 'CD20'\]"),
        ({"channels": []}, ValueError, "at least one channel"),
        ({"channels": ["CD3", "CD3"]}, ValueError, "none twice"),
        ({"channels": ["CD20"]}, ValueError, r"no score of any cell in channel\(s\) 'CD20'"),
        ({"channels": ["CD3", "CD8"]}, ValueError, "no cell with a score in each of 'CD3', 'CD8'.*CD3 1, CD8 1"),
    ],
)
def test_what_cannot_be_used_is_said(given, error, message):
    adata = table([[0.1, NAN, NAN], [NAN, 0.2, NAN]])
    with pytest.raises(error, match=message):
        tool(adata, **{"layer": "nimbus", "channels": None, **given})


def test_a_name_that_two_channels_have():
    with pytest.raises(ValueError, match=r"more than one channel named 'CD3'.*make_unique"):
        tool(table([[0.1, 0.2, 0.3]], ("CD3", "CD3", "CD8")), "nimbus", None)


@pytest.mark.parametrize("name", ["a/b", "", "__own", ".", "_index", "with space", "ä/ö"])
def test_names_that_cannot_be_written_are_refused(name):
    with pytest.raises(ValueError, match="cannot be written to disk"):
        check_key_added(table([[1, 2, 3]]), name, "leiden")


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_the_longest_name_can_be_written_and_longer_ones_are_refused(letter, tmp_path):
    name = letter * (200 // len(letter.encode()))
    adata = table([[1, 2, 3]])
    check_key_added(adata, name, "leiden")
    adata.obsp[f"{name}_neighbors_connectivities"] = sparse.csr_matrix((1, 1))
    adata.write_zarr(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=rf"'{letter * 40}' and so on, 20[12] bytes; at most 200 can be written"):
        check_key_added(adata, name + letter, "leiden")


def test_names_of_other_things_are_refused_and_own_ones_are_overwritten(caplog):
    adata = table([[1, 2, 3]])
    adata.obs["mine"] = "x"
    check_key_added(adata, "mine", "call_positive")
    also = [("obs", "mine"), ("obs", "mine_node")]
    with pytest.raises(ValueError, match=r"the table has obs\['mine'\], which `tl.leiden` did not make"):
        check_key_added(adata, "mine", "leiden", also)
    with pytest.raises(ValueError, match=r"obs has 'mine'.*upper and lower case"):
        check_key_added(adata, "Mine", "leiden", [("obs", "Mine")])
    with pytest.raises(TypeError, match="must be a text"):
        check_key_added(adata, 3, "leiden")
    adata.uns["mine"] = {"tool": "leiden"}
    with caplog.at_level("INFO", "nimbus_sd"):
        earlier = check_key_added(adata, "mine", "leiden", also)
        # Nothing is overwritten yet.
        assert earlier == ["uns['mine']", "obs['mine']"] and not caplog.messages
        log_overwritten(earlier, "leiden")
        log_overwritten(check_key_added(adata, "new", "leiden"), "leiden")
    assert caplog.messages == ["overwrote uns['mine'], obs['mine'] of an earlier `tl.leiden`"]
    with pytest.raises(ValueError, match=r"`tl\.flowsom` did not make"):
        check_key_added(adata, "mine", "flowsom")
