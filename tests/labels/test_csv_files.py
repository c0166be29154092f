"""Labels through CSV files, in our form and in that of the paper's authors."""

import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns

NAN = np.nan
OURS, THEIRS = "region,instance_id,channel,label\n", "fov,cell_id,channel,activity\n"


@pytest.fixture
def read(adata, tmp_path):

    def read(text, key_added="gold", **options):
        (tmp_path / "x.csv").write_bytes(text.encode() if isinstance(text, str) else text)
        ns.labels.from_csv(adata, tmp_path / "x.csv", key_added=key_added, **options)
        return adata.layers[key_added]

    return read


def test_words_empty_labels_and_large_ids(adata, read):
    adata.layers["gold"] = np.ones(adata.shape, np.float32)
    labels = read(OURS + f"a,{2**40},CD3,Likely positive\nb,9,CD3,\nb,1.0,CD20,0.25\n")
    expected = np.ones(adata.shape)
    expected[2, 0], expected[5, 0], expected[3, 1] = 0.75, NAN, 0.25
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    "codes, by_fov, labels, column, written",
    [
        (None, True, [1, 0, 0.5, 0.75], "label", [1, 0, 0.5, 0.75]),
        ("gold", False, [1, 0, 0.75, 0.25], "activity", [1, 0, 2, 3]),
        ("silver", True, [1, 0, 0.5, NAN], "activity", [1, 0, 2]),
    ],
)
def test_files_come_back(adata, tmp_path, codes, by_fov, labels, column, written):
    adata.layers["gold"] = np.full(adata.shape, NAN, np.float32)
    adata.layers["gold"][[0, 1, 3, 4], 1] = labels
    if by_fov:
        adata.obs["fov"], adata.obs["dataset"] = adata.obs["region"].astype(str) + ".tiff", "mibi"
    path = tmp_path / "x.csv"
    ns.labels.to_csv(adata, path, codes=codes)
    table = pd.read_csv(path)
    theirs = [*(["dataset"] if by_fov else []), "fov", "cell_id", "channel", "activity"]
    assert list(table) == (theirs if codes else ["region", "instance_id", "channel", "label"])
    assert table[column].to_list() == written
    assert not codes or table["fov"].to_list()[0] == ("a.tiff" if by_fov else "a")
    ns.labels.from_csv(adata, path, key_added="back", codes=codes)
    np.testing.assert_array_equal(adata.layers["back"], adata.layers["gold"])
    with pytest.raises(FileExistsError, match="left as it is"):
        ns.labels.to_csv(adata, path)


def test_fields_of_view_may_be_regions_with_an_ending(table_of, tmp_path):
    adata = table_of({"fov1_labels": [1, 2]})
    (tmp_path / "x.csv").write_text("channel,activity,labels,fov\nCD3,1,2,fov1\nCD3,,1,fov1\nCD20,0.0,1,fov1_labels\n")
    ns.labels.from_csv(adata, tmp_path / "x.csv")
    np.testing.assert_array_equal(adata.layers["gold"], [[NAN, 0, NAN], [1, NAN, NAN]])


def test_a_two_needs_a_meaning(read):
    with pytest.raises(ValueError, match=r"'leaning positive'.*'undetermined'.*codes="):
        read(THEIRS + "a,1,CD3,2\n")
    for codes, label in (("gold", 0.75), ("silver", 0.5)):
        assert read(THEIRS + "a,1,CD3,2\n", codes, codes=codes)[0, 0] == label
    assert read(THEIRS + "a,1,CD3,2\na,5,CD3,3\n", "both")[:2, 0].tolist() == [0.75, 0.25]


def test_other_data_sets_are_left_out_and_must_be_named(adata, read):
    text = "dataset,fov,cell_id,channel,activity\none,a,1,CD3,1\ntwo,a,1,CD3,0\n"
    with pytest.raises(ValueError, match=r"several data sets.*obs\['dataset'\]"):
        read(text)
    adata.obs["dataset"] = "two"
    assert read(text)[0, 0] == 0
    adata.obs["dataset"] = "three"
    with pytest.raises(ValueError, match="no labels for 'three'"):
        read(text)


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
    "text, error, message",
    [
        (OURS + "a,1,CD3,0.6\n", ValueError, "label.*0.6.*1 .positive."),
        (OURS + "c,1,CD3,1\n", KeyError, "No region 'c'"),
        (OURS + "a,1,CD33,1\n", KeyError, "No channel 'CD33'.*Did you mean 'CD3'"),
        (OURS + "a,1.5,CD3,1\na,x,CD3,1\n", ValueError, "'1.5', 'x' of instance_id.*whole"),
        (OURS + 2 * "a,1,CD3,1\n" + "a,1,CD3,0\n", ValueError, "1 cells in more than one way: cell 1 of 'a' for 'CD3'"),
        (OURS, ValueError, "no labels"),
        (OURS + "a,77,CD3,1\n", ValueError, "1 labels, none of them of a cell"),
        ("a,b\n1,2\n", ValueError, "has the columns"),
    ],
)
def test_a_bad_file_changes_nothing(adata, read, text, error, message):
    with pytest.raises(error, match=message):
        read(text)
    assert not adata.layers


def test_layers_of_something_else_are_safe(adata, read):
    adata.layers["area"] = np.full(adata.shape, 7.0)
    for key, message in (("nimbus", "kept for something else"), ("area", r"layers\['area'\] has the label")):
        with pytest.raises(ValueError, match=message):
            read(OURS + "a,1,CD3,1\n", key)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        ((OURS + "a,1,CD3,1\na,5,CD3,1,0\n").encode(), "4 columns, but line 3 has more or fewer"),
        ((THEIRS + "a,1,CD3\n").encode(), "4 columns, but line 2 has more or fewer"),
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
    adata.layers["gold"] = np.array([[1, 0, 0.5], [0.75, 0.25, NAN], [NAN] * 3] * 2, np.float32)
    adata.layers["nimbus"] = adata.layers["gold"] * 0.9
    for options, message in (
        ({"codes": "gold"}, "'gold' has no number for 'undetermined'"),
        ({"codes": "silver"}, "'likely negative', 'likely positive'"),
        ({"layer": "nimbus"}, r"layers\['nimbus'\] has the label"),
        ({"codes": "peer"}, "`codes`"),
    ):
        with pytest.raises(ValueError, match=message):
            ns.labels.to_csv(adata, tmp_path / "x.csv", **options)
    assert not list(tmp_path.iterdir())
