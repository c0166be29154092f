"""The gold standard, from the hub's stand-in to scores and metrics."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spatialdata import read_zarr
from standin_hub import FIRST, SECOND
from standin_pan_m import LAYOUT, ROOT, UNLABELLED, gold_standard, tiff, zipped

import nimbus_sd as ns
from nimbus_sd.datasets._pan_m import FULL, GOLD_DATASETS, GOLD_STANDARD
from nimbus_sd.io.fovs import element_names

LABEL = {0: 0.0, 1: 1.0, 2: 0.75, 3: 0.25}
DATASETS = sorted(LAYOUT)


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
    found = read()
    assert sorted(found) == DATASETS == sorted(GOLD_DATASETS)
    for dataset, sdata in found.items():
        fovs, _, _, channels = LAYOUT[dataset]
        names = element_names(fovs)
        assert sorted(sdata.images) == sorted(names.values())
        table = sdata["table"]
        assert list(table.var_names) == sorted(set(channels) - UNLABELLED)
        for fov, name in names.items():
            image = sdata[name]
            assert list(image.coords["c"].values) == list(table.var_names)
            order = [channels.index(channel) for channel in table.var_names]
            np.testing.assert_array_equal(image.values, made.images[dataset, fov][order])
            np.testing.assert_array_equal(sdata[f"{name}_labels"].values, made.masks[dataset, fov])
        assert sdata.attrs["pan_m"]["commit"] == FIRST
        assert (table.obs["dataset"] == dataset).all()
        assert set(table.obs["platform"].astype(str) + "_" + table.obs["tissue"].astype(str)) == {dataset}


def test_labels_are_those_of_the_table_and_others_are_missing(standin, made):
    wanted = made.labels.set_index(["dataset", "fov", "cell_id", "channel"])["activity"]
    seen = 0
    for dataset, sdata in read().items():
        table = sdata["table"]
        assert table.layers["gold"].dtype == np.float32
        cells = {(dataset, fov): set(own["instance_id"]) for fov, own in table.obs.groupby("fov", observed=True)}
        assert cells == {key: set(ids) for key, ids in made.cells.items() if key[0] == dataset}
        gold = table.to_df(layer="gold")
        for cell, row in gold.iterrows():
            fov, number = table.obs.loc[cell, "fov"], table.obs.loc[cell, "instance_id"]
            for channel, label in row.items():
                code = wanted.get((dataset, fov, number, channel))
                assert np.isnan(label) if code is None else label == LABEL[code]
                seen += code is not None
        assert set(np.unique(gold.to_numpy()[np.isfinite(gold)])) == {0, 0.25, 0.75, 1}
        assert gold.isna().any(axis=None)
    assert seen == len(wanted)


def test_names_of_elements_and_rows(folder):
    sdata = read("vectra_colon", folder=folder)["vectra_colon"]
    assert sorted(sdata.labels) == ["a__10_50__image_labels", "b__7_5__component_data.tif_image_labels"]
    obs = sdata["table"].obs
    assert list(obs.index) == [
        f"{region}_{cell}" for region, cell in zip(obs["region"], obs["instance_id"], strict=True)
    ]


def test_pixels_are_read_late(folder, tmp_path, made):
    root = tmp_path / "copy"
    for name in ("mibi_breast/fovs/TMA1_R1C1", "mibi_breast/fovs/TMA1_R1C10", "mibi_breast/masks"):
        (root / name).mkdir(parents=True)
    for name, content in made.files.items():
        if name.startswith("mibi_breast/") or name.endswith(".csv"):
            (root / name).write_bytes(content)
    sdata = read("mibi_breast", folder=root)["mibi_breast"]
    (root / "mibi_breast/fovs/TMA1_R1C1/CD3.tiff").unlink()
    with pytest.raises(FileNotFoundError):
        sdata["TMA1_R1C1"].compute()
    assert sdata["TMA1_R1C1"].sel(c="ECAD").values.any()


def test_scores_join_the_table_and_are_measured(standin, small, tmp_path, no_warning):
    tables = {}
    for dataset, sdata in read(pixel_size=0.5).items():
        before = sdata["table"].copy()
        adata = ns.predict(sdata, model=small, progress=False)
        assert list(adata.obs_names) == list(before.obs_names) and list(adata.var_names) == list(before.var_names)
        assert np.isfinite(adata.layers["nimbus"]).all()
        np.testing.assert_array_equal(adata.layers["gold"], before.layers["gold"])
        tables[dataset] = adata
        gold = np.isfinite(adata.layers["gold"])
        metrics = ns.metrics.marker_metrics(adata)
        assert metrics["cells"].tolist() == gold.sum(axis=0).tolist()
        # Bright cells are those labelled positive.
        assert (ns.metrics.marker_metrics(adata, "integrated_expression", threshold=100)["f1"] == 1).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "x.zarr")
    back = read_zarr(tmp_path / "x.zarr")
    np.testing.assert_array_equal(back["table"].layers["gold"], sdata["table"].layers["gold"])
    assert back.attrs["pan_m"]["dataset"] == dataset


def test_tables_without_scores_can_be_stored(folder, tmp_path):
    sdata = read(["mibi_decidua"], folder=folder)["mibi_decidua"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "x.zarr")
    np.testing.assert_array_equal(read_zarr(tmp_path / "x.zarr")["table"].layers["gold"], sdata["table"].layers["gold"])


def test_pixel_sizes_by_data_set(folder):
    found = read(["mibi_breast", "codex_colon"], folder=folder, pixel_size={"mibi_breast": 0.39})
    assert "TMA1_R1C1_um" in found["mibi_breast"].coordinate_systems
    assert "fov1_um" not in found["codex_colon"].coordinate_systems


def test_pixel_sizes_of_unknown_data_sets(folder, standin):
    known = "codex_colon, mibi_breast, mibi_decidua, vectra_colon, vectra_pancreas"
    for place in (folder, None):
        with pytest.raises(KeyError, match=rf"'mibi_brest' \(named in `pixel_size`\); there are {known}\."):
            read("mibi_breast", folder=place, pixel_size={"mibi_brest": 0.39})
    assert not standin.server.requests
    # One that is there but not read is no mistake.
    read("codex_colon", folder=folder, pixel_size={"mibi_breast": 0.39})


def test_unknown_names_are_said_before_any_download(standin):
    with pytest.raises(KeyError, match="no data set 'mibi_brest'; there are codex_colon, mibi_breast"):
        read(["mibi_decidua", "mibi_brest"])
    assert not standin.server.requests


def test_one_download_and_one_unpacking(standin, tmp_path):
    first = read("mibi_breast")["mibi_breast"]
    asked = len(standin.server.requests)
    unpacked = Path(first.attrs["pan_m"]["folder"])
    assert tmp_path / "assets" in unpacked.parents
    times = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    again = read("codex_colon")["codex_colon"]
    assert len(standin.server.requests) == asked
    assert {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")} == times
    standin.stop()
    assert read("codex_colon")["codex_colon"]["table"].obs.equals(again["table"].obs)


def test_newer_version_only_on_request(standin, made):
    read("mibi_breast")
    standin.publish("gold_standard_labelled.zip", zipped({f"v2/{name}": one for name, one in made.files.items()}))
    assert read("mibi_breast")["mibi_breast"].attrs["pan_m"]["commit"] == FIRST
    newer = read("mibi_breast", update=True)["mibi_breast"].attrs["pan_m"]
    assert newer["commit"] == SECOND and "/v2/" in newer["folder"]
    assert read("mibi_breast")["mibi_breast"].attrs["pan_m"] == newer


def test_no_hub_says_how_to_place_the_file_by_hand(standin, made, tmp_path):
    standin.stop()
    with pytest.raises(ConnectionError) as caught:
        read()
    text = str(caught.value)
    assert f"{standin.url}/datasets/{GOLD_STANDARD}" in text and "folder='/path/to/it.zip'" in text and "\n" not in text
    path = tmp_path / "by hand.zip"
    path.write_bytes(made.zip())
    assert sorted(read(folder=path)) == DATASETS
    assert sorted(read(folder=str(path))) == DATASETS


def test_table_beside_the_archive_and_several_archives(serve_hub, made):
    files = {"labels/gold_standard_groundtruth.csv": made.files["gold_standard_groundtruth.csv"], "data/notes.txt": b""}
    for dataset in DATASETS:
        own = {name: content for name, content in made.files.items() if name.startswith(f"{dataset}/")}
        files[f"data/{dataset}.zip"] = zipped(own)
    serve_hub("datasets", GOLD_STANDARD, files)
    found = read()
    assert sorted(found) == DATASETS
    assert sum(np.isfinite(one["table"].layers["gold"]).sum() for one in found.values()) == len(made.labels)


def test_repository_without_an_archive_lists_what_is_there(serve_hub):
    serve_hub("datasets", GOLD_STANDARD, {"README.md": b"#", "data.tar": b""})
    with pytest.raises(ValueError, match=r"holds no zip archive, but README\.md, data\.tar"):
        read()


def test_unknown_data_sets_and_folders(folder, tmp_path):
    with pytest.raises(KeyError, match="no data set 'mibi_brest'; there are codex_colon, mibi_breast"):
        read("mibi_brest", folder=folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no data set"):
        read(folder=tmp_path)
    (tmp_path / "x.tar").touch()
    with pytest.raises(ValueError, match=r"neither a folder nor a zip"):
        read(folder=tmp_path / "x.tar")


@pytest.fixture
def one(tmp_path):
    """A function that writes one data set of one field of view and reads it."""

    def write(labels, files=None, function=read):
        mask = np.array([[1, 1, 0], [2, 2, 0], [0, 0, 0]])
        plain = {"d/fovs/f/CD3.tif": tiff(mask), "d/fovs/f/CD8.tif": tiff(mask), "d/masks/f.tif": tiff(mask)}
        for name, content in {**plain, "labels.csv": labels.encode(), **(files or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return function("d", folder=tmp_path)["d"]

    return write


HEAD = "dataset,fov,cell_id,channel,activity\n"


def test_labels_of_what_is_not_there_are_left_out_with_a_warning(one):
    rows = "d,f,1,CD3,1\nd,f,2,CD3,0\nd,f,9,CD3,1\nd,f,1,CD4,1\nd,g,1,CD3,1\ne,f,1,CD3,1\nd,f,2,CD8,\n"
    with pytest.warns(UserWarning) as caught:
        table = one(HEAD + rows)["table"]
    said = " ".join(str(warning.message) for warning in caught)
    assert "labels of 'g' were left out" in said and "'CD4'" in said and "labels of 1 cells" in said
    assert all(warning.filename == __file__ for warning in caught if "left out" in str(warning.message))
    assert table.layers["gold"].tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize(
    "labels, said",
    [
        (HEAD + "d,f,1,CD3,4\n", r"activity codes \[4\.0\]; known are \[0, 1, 2, 3\]"),
        (HEAD + "d,f,1,CD3,1\nd,f,1,CD3,0\n", "labels 1 cells in two ways, such as cell 1 of 'f' for 'CD3'"),
        (HEAD + "d,f,1.5,CD3,1\n", "not whole numbers"),
        (HEAD + "d,f,x,CD3,1\n", "not a table of labels"),
        (HEAD + "e,f,1,CD3,1\n", "has no labels for 'd'"),
        (HEAD + "d,g,1,CD3,1\n", "no field of view has labels"),
        (HEAD + "d,f,1,CD4,1\n", "labelled channels are 'CD4', those of images 'CD3', 'CD8'"),
        ("fov,cell,marker\nf,1,CD3\n", "No table of labels for 'd'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tables_that_are_no_labels(one, labels, said):
    with pytest.raises(ValueError, match=said):
        one(labels)


def test_repeated_labels_that_agree_are_one(one):
    assert one(HEAD + "d,f,1,CD3,1\nd,f,1,CD3,1\n")["table"].layers["gold"][0, 0] == 1


def test_two_tables_or_two_data_sets_are_not_clear(one, tmp_path):
    with pytest.raises(ValueError, match="several tables of labels"):
        one(HEAD + "d,f,1,CD3,1\n", {"more.csv": (HEAD + "d,f,1,CD3,1\n").encode()})
    (tmp_path / "more.csv").unlink()
    with pytest.raises(ValueError, match="two data sets 'd'"):
        one(HEAD, {"copy/d/fovs/f/CD3.tif": b"", "copy/d/masks/f.tif": b""})


def test_mask_that_is_not_clear_or_missing(one, tmp_path):
    mask = tiff(np.ones((3, 3), int))
    (tmp_path / "d/masks").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Several masks for 'f'"):
        one(HEAD + "d,f,1,CD3,1\n", {"d/masks/f.tif": b"", "d/masks/f_a.tif": mask, "d/masks/f.tiff": mask})


def full_archive(made, dataset="mibi_breast"):
    """A data set of the full Pan-M: the same folders under its own names, and silver labels."""
    files = {
        name.replace("/fovs/", "/image_data/").replace("/masks/", "/segmentation_data/deepcell_output/"): content
        for name, content in made.files.items()
        if name.startswith(f"{dataset}/")
    }
    labels = made.labels[made.labels["dataset"] == dataset].drop(columns="dataset").replace({"activity": {3: 2}})
    files[f"{dataset}/silver_labels.csv"] = labels.rename(columns={"cell_id": "labels"}).to_csv(index=False).encode()
    files[f"{dataset}/cell_table.csv"] = pd.DataFrame({"fov": ["x"], "cell_type": ["T"]}).to_csv().encode()
    return zipped(files)


@pytest.mark.parametrize("n_parts", [1, 3])
def test_one_data_set_of_the_full_data(serve_hub, made, small, n_parts):
    archive = full_archive(made)
    cut = np.linspace(0, len(archive), n_parts + 1).astype(int)
    parts = {f"mibi_breast.zip.{i + 1:03d}": archive[cut[i] : cut[i + 1]] for i in range(n_parts)}
    files = parts if n_parts > 1 else {"mibi_breast.zip": archive}
    hub = serve_hub("datasets", FULL, {**files, "codex_colon.zip": b"large", "consolidated.csv": b"large"})
    sdata = ns.datasets.pan_m("mibi_breast", pixel_size=0.5, progress=False)
    assert not any("codex" in request or "consolidated" in request for request in hub.server.requests)
    table = sdata["table"]
    assert "gold" not in table.layers
    own = made.labels[made.labels["dataset"] == "mibi_breast"]
    silver = table.layers["silver"]
    counts = {label: int((silver == label).sum()) for label in (0, 0.5, 1)}
    assert counts == {0: (own.activity == 0).sum(), 0.5: (own.activity > 1).sum(), 1: (own.activity == 1).sum()}
    assert np.isfinite(ns.predict(sdata, model=small, progress=False).layers["nimbus"]).all()


def test_full_data_that_are_not_there(serve_hub, made, tmp_path):
    files = {"mibi_breast.zip": b"", "codex_colon.zip.001": b"", "codex_colon.zip.003": b""}
    hub = serve_hub("datasets", FULL, files)
    with pytest.raises(ValueError, match=r"archive codex_colon\.zip, parts are missing"):
        ns.datasets.pan_m("mibi_breast", progress=False)
    hub.server.commits = {FIRST: {"mibi_breast.zip": b""}}
    with pytest.raises(KeyError, match="no data set 'mibi_brest', but mibi_breast"):
        ns.datasets.pan_m("mibi_brest", progress=False)
    for i, part in enumerate((full_archive(made)[:1000], full_archive(made)[1000:])):
        (tmp_path / f"mibi_breast.zip.{i + 1:03d}").write_bytes(part)
    sdata = ns.datasets.pan_m("mibi_breast", folder=tmp_path / "mibi_breast.zip.001", progress=False)
    assert "silver" in sdata["table"].layers
