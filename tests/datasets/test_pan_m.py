"""The gold standard, from the hub's stand-in to scores and metrics."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spatialdata import read_zarr
from standin_hub import FIRST
from standin_pan_m import LAYOUT, ROOT, UNLABELLED, gold_standard, tiff, zipped

import nimbus_sd as ns
from nimbus_sd.datasets.pan_m import FULL, GOLD_DATASETS, GOLD_STANDARD
from nimbus_sd.io import element_names

LABEL = {0: 0.0, 1: 1.0, 2: 0.75, 3: 0.25}
DATASETS = sorted(LAYOUT)
NAMES = "codex_colon, mibi_breast, mibi_decidua, vectra_colon, vectra_pancreas"


@pytest.fixture(scope="module")
def made():
    return gold_standard()


@pytest.fixture
def standin(serve_hub, made):
    return serve_hub("datasets", GOLD_STANDARD, {"README.md": b"#", "gold_standard_labelled.zip": made.zip()})


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """The unpacked archive; not to be changed."""
    root = tmp_path_factory.mktemp("gold") / ROOT
    for name, content in made.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def read(*args, **kwargs):
    return ns.datasets.pan_m_gold_standard(*args, progress=False, **kwargs)


def test_five_data_sets_of_both_file_forms(standin, made, no_warning):
    wanted = made.labels.set_index(["dataset", "fov", "cell_id", "channel"])["activity"].map(LABEL)
    datasets = read()
    assert sorted(datasets) == DATASETS == sorted(GOLD_DATASETS)
    for dataset, sdata in datasets.items():
        fovs, _, _, channels = LAYOUT[dataset]
        names, table = element_names(fovs), sdata["table"]
        assert list(table.var_names) == sorted(set(channels) - UNLABELLED)
        for fov, name in names.items():
            assert list(sdata[name].coords["c"].values) == list(table.var_names)
            order = [channels.index(channel) for channel in table.var_names]
            np.testing.assert_array_equal(sdata[name].values, made.images[dataset, fov][order])
            np.testing.assert_array_equal(sdata[f"{name}_labels"].values, made.masks[dataset, fov])
        obs = table.obs
        assert sdata.attrs["pan_m"]["commit"] == FIRST and (obs["dataset"] == dataset).all()
        assert set(obs["platform"].astype(str) + "_" + obs["tissue"].astype(str)) == {dataset}
        assert list(obs.index) == list(obs["region"].astype(str) + "_" + obs["instance_id"].astype(str))
        cells = {(dataset, fov): set(of_fov["instance_id"]) for fov, of_fov in obs.groupby("fov", observed=True)}
        assert cells == {key: set(ids) for key, ids in made.cells.items() if key[0] == dataset}
        # All labels of the table, and NaN elsewhere.
        gold = table.to_df("gold").set_axis(pd.MultiIndex.from_frame(obs[["fov", "instance_id"]].astype({"fov": str})))
        gold = gold.rename_axis("channel", axis=1).stack()
        assert table.layers["gold"].dtype == np.float32 and set(gold) == {0, 0.25, 0.75, 1}
        assert gold.to_dict() == wanted[dataset].to_dict()


def test_scores_join_the_table(folder, small, tmp_path, no_warning):
    for dataset, sdata in read(["mibi_decidua", "vectra_pancreas"], folder=folder, pixel_size=0.5).items():
        before = sdata["table"].copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdata.write(tmp_path / f"{dataset}.zarr")
        back = read_zarr(tmp_path / f"{dataset}.zarr")
        np.testing.assert_array_equal(back["table"].layers["gold"], before.layers["gold"])
        assert back.attrs["pan_m"]["dataset"] == dataset
        adata = ns.predict(sdata, model=small, progress=False)
        assert list(adata.obs_names) == list(before.obs_names) and list(adata.var_names) == list(before.var_names)
        assert np.isfinite(adata.layers["nimbus"]).all()
        # Bright cells are those labelled positive.
        assert (ns.metrics.marker_metrics(adata, "integrated_expression", threshold=100)["f1"] == 1).all()


def test_pixel_sizes_by_data_set_and_unknown_names_before_any_download(folder, standin):
    # One that exists but is not read is no mistake.
    sizes = {"mibi_breast": 0.39, "mibi_decidua": 1}
    datasets = read(["mibi_breast", "codex_colon"], folder=folder, pixel_size=sizes)
    assert "TMA1_R1C1_um" in datasets["mibi_breast"].coordinate_systems
    assert "fov1_um" not in datasets["codex_colon"].coordinate_systems
    for place in (folder, None):
        with pytest.raises(KeyError, match=rf"'mibi_brest' \(named in `pixel_size`\); there are {NAMES}\."):
            read("mibi_breast", folder=place, pixel_size={"mibi_brest": 0.39})
        with pytest.raises(KeyError, match=f"no data set 'mibi_brest'; there are {NAMES}"):
            read(["mibi_decidua", "mibi_brest"], folder=place)
    assert not standin.server.requests


def test_one_unpacking_and_what_to_do_without_a_hub(standin, made, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ConnectionError) as caught:
            read()
    text = str(caught.value)
    assert f":9/datasets/{GOLD_STANDARD}" in text and "folder='/path/to/it.zip'" in text and "\n" not in text
    unpacked = Path(read("mibi_breast")["mibi_breast"].attrs["pan_m"]["folder"])
    assert tmp_path / "assets" in unpacked.parents
    times = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    assert read("codex_colon")["codex_colon"].attrs["pan_m"]["commit"] == FIRST
    assert {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")} == times
    path = tmp_path / "by hand.zip"
    path.write_bytes(made.zip())
    assert sorted(read(folder=str(path))) == DATASETS


def test_table_beside_the_archive_and_several_archives(serve_hub, made):
    files = {"labels/gold_standard_groundtruth.csv": made.files["gold_standard_groundtruth.csv"], "data/notes.txt": b""}
    for dataset in DATASETS:
        content = {name: data for name, data in made.files.items() if name.startswith(f"{dataset}/")}
        files[f"data/{dataset}.zip"] = zipped(content)
    serve_hub("datasets", GOLD_STANDARD, files)
    datasets = read()
    assert sorted(datasets) == DATASETS
    assert sum(np.isfinite(sdata["table"].layers["gold"]).sum() for sdata in datasets.values()) == len(made.labels)


def test_what_holds_no_data_set(serve_hub, tmp_path):
    serve_hub("datasets", GOLD_STANDARD, {"README.md": b"#", "data.tar": b""})
    with pytest.raises(ValueError, match=r"holds no zip archive, but 'README\.md', 'data\.tar'"):
        read()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no data set"):
        read(folder=tmp_path)
    (tmp_path / "x.tar").touch()
    with pytest.raises(ValueError, match=r"neither a folder nor a zip"):
        read(folder=tmp_path / "x.tar")


@pytest.fixture
def read_one(tmp_path):

    def write(labels, files=None):
        mask = tiff(np.array([[1, 1, 0], [2, 2, 0], [0, 0, 0]]))
        plain = {"d/fovs/f/CD3.tif": mask, "d/fovs/f/CD8.tif": mask, "d/masks/f.tif": mask}
        for name, content in {**plain, "labels.csv": labels.encode(), **(files or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return read("d", folder=tmp_path)["d"]

    return write


HEAD = "dataset,fov,cell_id,channel,activity\n"


def test_labels_of_what_is_not_there_are_left_out_with_a_warning(read_one):
    # Labels that are there twice and agree are one.
    rows = "d,f,1,CD3,1\nd,f,1,CD3,1\nd,f,2,CD3,0\nd,f,9,CD3,1\nd,f,1,CD4,1\nd,g,1,CD3,1\ne,f,1,CD3,1\nd,f,2,CD8,\n"
    with pytest.warns(UserWarning) as caught:
        table = read_one(HEAD + rows)["table"]
    said = " ".join(str(warning.message) for warning in caught)
    assert "labels of 'g' were left out" in said and "'CD4'" in said and "labels of 1 cells" in said
    assert all(warning.filename == __file__ for warning in caught if "left out" in str(warning.message))
    assert table.layers["gold"].tolist() == [[1.0], [0.0]]


MASK = tiff(np.ones((3, 3), int))
ONE_LABEL = HEAD + "d,f,1,CD3,1\n"


@pytest.mark.parametrize(
    "labels, files, said",
    [
        (HEAD + "d,f,1,CD3,4\n", {}, r"values '4' of activity; they must be one of \[0"),
        (HEAD + "d,f,1,CD3,1\nd,f,1,CD3,0\n", {}, "labels 1 cells in more than one way: cell 1 of 'f' for 'CD3'"),
        (HEAD + "d,f,1.5,CD3,1\n", {}, "values '1.5' of cell_id; they must be whole numbers"),
        (HEAD + "e,f,1,CD3,1\n", {}, "has no labels for 'd'"),
        (HEAD + "d,g,1,CD3,1\n", {}, "no field of view has labels"),
        (HEAD + "d,f,1,CD4,1\n", {}, "labelled channels are 'CD4', those of images 'CD3', 'CD8'"),
        ("fov,cell,marker\nf,1,CD3\n", {}, "No table of labels for 'd'"),
        (ONE_LABEL, {"more.csv": ONE_LABEL.encode()}, "several tables of labels"),
        (ONE_LABEL, {"copy/d/fovs/f/CD3.tif": b"", "copy/d/masks/f.tif": b""}, "two data sets 'd'"),
        (ONE_LABEL, {"d/masks/f.tif": b"", "d/masks/f_a.tif": MASK, "d/masks/f.tiff": MASK}, "Several masks for 'f'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_labels_and_folders_that_are_not_clear(read_one, labels, files, said):
    with pytest.raises(ValueError, match=said):
        read_one(labels, files)


def full_archive(made):
    """A data set of the full Pan-M: the same folders under its own names, and silver labels."""
    files = {
        name.replace("/fovs/", "/image_data/").replace("/masks/", "/segmentation_data/deepcell_output/"): content
        for name, content in made.files.items()
        if name.startswith("mibi_breast/")
    }
    labels = made.labels[made.labels["dataset"] == "mibi_breast"].drop(columns="dataset").replace({"activity": {3: 2}})
    files["mibi_breast/silver_labels.csv"] = labels.rename(columns={"cell_id": "labels"}).to_csv(index=False).encode()
    files["mibi_breast/cell_table.csv"] = pd.DataFrame({"fov": ["x"], "cell_type": ["T"]}).to_csv().encode()
    return zipped(files)


@pytest.mark.parametrize("n_parts", [1, 3])
def test_one_data_set_of_the_full_data(serve_hub, made, tmp_path, n_parts):
    archive = full_archive(made)
    cut = np.linspace(0, len(archive), n_parts + 1).astype(int)
    parts = {f"mibi_breast.zip.{i + 1:03d}": archive[cut[i] : cut[i + 1]] for i in range(n_parts)}
    files = parts if n_parts > 1 else {"mibi_breast.zip": archive}
    hub = serve_hub("datasets", FULL, {**files, "codex_colon.zip": b"large", "consolidated.csv": b"large"})
    sdata = ns.datasets.pan_m("mibi_breast", pixel_size=0.5, progress=False)
    assert not any("codex" in request or "consolidated" in request for request in hub.server.requests)
    silver = sdata["table"].to_df("silver").stack()
    labels = made.labels[made.labels["dataset"] == "mibi_breast"]
    expected = labels["activity"].map({0: 0, 1: 1, 2: 0.5, 3: 0.5}).value_counts()
    assert silver.value_counts().to_dict() == expected.to_dict() and "gold" not in sdata["table"].layers
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    again = ns.datasets.pan_m("mibi_breast", folder=tmp_path / next(iter(files)), progress=False)
    np.testing.assert_array_equal(again["table"].layers["silver"], sdata["table"].layers["silver"])


def test_full_data_that_are_not_there(serve_hub):
    hub = serve_hub("datasets", FULL, {"mibi_breast.zip": b"", "codex_colon.zip.001": b"", "codex_colon.zip.003": b""})
    with pytest.raises(ValueError, match=r"archive codex_colon\.zip, parts are missing"):
        ns.datasets.pan_m("mibi_breast", progress=False)
    hub.server.commits = {FIRST: {"mibi_breast.zip": b""}}
    with pytest.raises(KeyError, match="no data set 'mibi_brest', but mibi_breast"):
        ns.datasets.pan_m("mibi_brest", progress=False)
