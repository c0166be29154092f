"""Labels through CSV files, in our form and in those of the paper's authors."""

import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns

NAN = np.nan
ALL = np.array([[1, 0, 0.5], [0.75, 0.25, NAN], [NAN] * 3] * 2, np.float32)
PLACE = {"region": "a", "instance_id": 1, "channel": "CD3"}


def test_ours_comes_back_with_all_states(adata, tmp_path):
    adata.layers["gold"] = ALL
    ns.labels.to_csv(adata, tmp_path / "labels.csv")
    table = pd.read_csv(tmp_path / "labels.csv")
    assert list(table) == ["region", "instance_id", "channel", "label"] and len(table) == 10
    ns.labels.from_csv(adata, tmp_path / "labels.csv", key_added="back")
    np.testing.assert_array_equal(adata.layers["back"], ALL)
    with pytest.raises(FileExistsError, match="left as it is"):
        ns.labels.to_csv(adata, tmp_path / "labels.csv")


def test_words_empty_labels_and_large_ids(adata, tmp_path):
    rows = [("a", 2**40, "CD3", "Likely positive"), ("b", 9, "CD3", ""), ("b", "1.0", "CD20", "0.25")]
    pd.DataFrame(rows, columns=[*PLACE, "label"]).to_csv(tmp_path / "x.csv", index=False)
    adata.layers["gold"] = np.ones(adata.shape, np.float32)
    ns.labels.from_csv(adata, tmp_path / "x.csv")
    expected = np.ones(adata.shape)
    expected[2, 0], expected[5, 0], expected[3, 1] = 0.75, NAN, 0.25
    np.testing.assert_array_equal(adata.layers["gold"], expected)


@pytest.mark.parametrize("codes, labels", [("gold", [1, 0, 0.75, 0.25]), ("silver", [1, 0, 0.5, NAN])])
@pytest.mark.parametrize("by_fov", [False, True])
def test_the_authors_forms(adata, tmp_path, codes, labels, by_fov):
    values = np.full(adata.shape, NAN, np.float32)
    values[[0, 1, 3, 4], 1] = labels
    adata.layers["gold"] = values
    if by_fov:
        adata.obs["fov"] = adata.obs["region"].astype(str) + ".tiff"
        adata.obs["dataset"] = "mibi"
    ns.labels.to_csv(adata, tmp_path / "x.csv", codes=codes)
    table = pd.read_csv(tmp_path / "x.csv")
    assert list(table) == [*(["dataset"] if by_fov else []), "fov", "cell_id", "channel", "activity"]
    assert table["activity"].to_list() == ([1, 0, 2, 3] if codes == "gold" else [1, 0, 2])
    assert table["fov"].to_list()[0] == ("a.tiff" if by_fov else "a")
    ns.labels.from_csv(adata, tmp_path / "x.csv", key_added="back", codes=codes)
    np.testing.assert_array_equal(adata.layers["back"], values)


def test_fields_of_view_may_be_regions_with_an_ending(table_of, tmp_path):
    adata = table_of({"fov1_labels": [1, 2]})
    (tmp_path / "x.csv").write_text("fov,cell_id,channel,activity\nfov1,2,CD3,1\n")
    ns.labels.from_csv(adata, tmp_path / "x.csv")
    assert adata.layers["gold"][1, 0] == 1 and np.isfinite(adata.layers["gold"]).sum() == 1


def test_a_two_needs_a_meaning(adata, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("fov,cell_id,channel,activity\na,1,CD3,2\n")
    with pytest.raises(ValueError, match=r"'leaning positive'.*'undetermined'.*codes="):
        ns.labels.from_csv(adata, path)
    for codes, label in (("gold", 0.75), ("silver", 0.5)):
        ns.labels.from_csv(adata, path, key_added=codes, codes=codes)
        assert adata.layers[codes][0, 0] == label
    path.write_text("fov,cell_id,channel,activity\na,1,CD3,2\na,5,CD3,3\n")
    ns.labels.from_csv(adata, path, key_added="both")
    assert adata.layers["both"][:2, 0].tolist() == [0.75, 0.25]


def test_other_data_sets_are_left_out_and_must_be_told(adata, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("dataset,fov,cell_id,channel,activity\none,a,1,CD3,1\ntwo,a,1,CD3,0\n")
    with pytest.raises(ValueError, match=r"several data sets.*obs\['dataset'\]"):
        ns.labels.from_csv(adata, path)
    adata.obs["dataset"] = "two"
    ns.labels.from_csv(adata, path)
    assert adata.layers["gold"][0, 0] == 0


def test_fields_of_view_of_one_name_are_told_by_their_data_sets(adata, tmp_path):
    adata.obs["fov"], adata.obs["dataset"] = "fov1", np.where(adata.obs["region"] == "a", "one", "two")
    adata.layers["mine"] = np.array([[1, 0, NAN], [0, NAN, NAN], [1, 1, 1], [0, 1, NAN], [NAN] * 3, [0] * 3], "f4")
    ns.labels.to_csv(adata, tmp_path / "x.csv", layer="mine", codes="gold")
    ns.labels.from_csv(adata, tmp_path / "x.csv", key_added="back")
    np.testing.assert_array_equal(adata.layers["back"], adata.layers["mine"])
    del adata.obs["dataset"]
    ns.labels.to_csv(adata[:3], tmp_path / "y.csv", layer="mine", codes="gold")
    with pytest.raises(ValueError, match=r"field of view 'fov1', which the regions 'a'.*'b' share"):
        ns.labels.from_csv(adata, tmp_path / "y.csv", key_added="again")


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"label": 0.6}, ValueError, "label.*0.6.*1 .positive."),
        ({"label": "maybe"}, ValueError, "'maybe'"),
        ({"region": "c"}, KeyError, "No region 'c'"),
        ({"channel": "CD33"}, KeyError, "No channel 'CD33'.*Did you mean 'CD3'"),
        ({"instance_id": 1.5}, ValueError, "instance_id.*whole"),
        ({"label": 0}, ValueError, "more than one way, such as cell 1 of 'a' for 'CD3': positive and negative"),
    ],
)
def test_a_bad_file_changes_nothing(adata, tmp_path, change, error, message):
    rows = [PLACE | {"label": 1}, PLACE | {"label": 1} | change]
    pd.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(error, match=message):
        ns.labels.from_csv(adata, tmp_path / "x.csv")
    assert not adata.layers


@pytest.mark.parametrize("row, message", [("", "no labels"), ("a,77,CD3,1\n", "1 labels, none of them of a cell")])
def test_a_file_of_no_cell_makes_no_layer(adata, tmp_path, row, message):
    (tmp_path / "x.csv").write_text("region,instance_id,channel,label\n" + row)
    with pytest.raises(ValueError, match=message):
        ns.labels.from_csv(adata, tmp_path / "x.csv")
    assert not adata.layers


OURS = "region,instance_id,channel,label\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        ((OURS + "a,1,CD3,1\na,5,CD3,1,0\n").encode(), "4 columns, but line 3 has more or fewer"),
        ((OURS + "a,1,CD3,1\na,5,CD3\n").encode(), "4 columns, but line 3 has more or fewer"),
        (b"fov,cell_id,channel,activity\na,1,CD3,1,0\n", "4 columns, but line 2 has more or fewer"),
        ((OURS + "\u00e4,1,CD3,1\n").encode("latin-1"), "no CSV file in UTF-8.*Save it as such"),
        ((OURS + '"a,1,CD3,1\n').encode(), "no CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_one_error(adata, tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    adata.layers["integrated_expression"] = np.ones(adata.shape)
    for read in (ns.labels.from_csv, ns.labels.silver_from_gates, ns.labels.silver):
        with pytest.raises(ValueError, match=message):
            read(adata, tmp_path / "x.csv")
    assert list(adata.layers) == ["integrated_expression"]


def test_what_cannot_be_said_is_not_written(adata, tmp_path):
    adata.layers["gold"] = ALL
    with pytest.raises(ValueError, match="'gold' has no number for 'undetermined'"):
        ns.labels.to_csv(adata, tmp_path / "x.csv", codes="gold")
    with pytest.raises(ValueError, match="'likely negative', 'likely positive'"):
        ns.labels.to_csv(adata, tmp_path / "x.csv", codes="silver")
    adata.layers["nimbus"] = ALL * 0.9
    with pytest.raises(ValueError, match=r"layers\['nimbus'\] has the label"):
        ns.labels.to_csv(adata, tmp_path / "x.csv", layer="nimbus")
    with pytest.raises(ValueError, match="`codes`"):
        ns.labels.to_csv(adata, tmp_path / "x.csv", codes="peer")
    assert not list(tmp_path.iterdir())


def test_layers_of_something_else_are_safe(adata, tmp_path):
    pd.DataFrame([PLACE | {"label": 1}]).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match="kept for something else"):
        ns.labels.from_csv(adata, tmp_path / "x.csv", key_added="nimbus")
    adata.layers["area"] = np.full(adata.shape, 7.0)
    with pytest.raises(ValueError, match=r"layers\['area'\] has the label"):
        ns.labels.from_csv(adata, tmp_path / "x.csv", key_added="area")
    (tmp_path / "y.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns"):
        ns.labels.from_csv(adata, tmp_path / "y.csv")
