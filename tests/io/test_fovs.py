"""Fields of view: which files they are, and the SpatialData that they become."""

import warnings

import numpy as np
import pytest
import tifffile
from spatialdata import read_zarr
from spatialdata.models import get_channel_names
from spatialdata.transformations import get_transformation

from nimbus_sd.io import find_fovs, read_fovs, with_pyramids
from nimbus_sd.spatial import find_regions

ALL = slice(None)
IMAGE = np.random.default_rng(0).integers(0, 60000, (3, 40, 60), dtype=np.uint16)
LABELS = np.arange(40 * 60, dtype=np.int32).reshape(40, 60) // 7
NAMES = ["CD3", "CD8", "CD20"]


def save(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **{"photometric": "minisblack"} | kwargs)
    return path


def ome(x=None, y=None, unit="\u00b5m", names=NAMES):
    sizes = {"PhysicalSizeX": x, "PhysicalSizeXUnit": unit, "PhysicalSizeY": y or x, "PhysicalSizeYUnit": unit}
    return {"axes": "CYX", "Channel": {"Name": names}} | (sizes if x else {})


@pytest.fixture
def folders(tmp_path):
    for i, fov in enumerate(("fov1", "fov10")):
        for name, plane in zip(NAMES, IMAGE + i, strict=True):
            save(tmp_path / "images" / fov / f"{name}.tiff", plane)
        save(tmp_path / "masks" / f"{fov}_whole_cell.tiff", LABELS + i)
    return tmp_path


def test_folders_of_channels_also_written_and_read_back(folders, tmp_path):
    (folders / "images" / "notes").mkdir()
    sdata = read_fovs(folders / "images", folders / "masks", pixel_size=0.377)
    assert list(sdata.images) == ["fov1", "fov10"] and list(sdata.labels) == ["fov1_labels", "fov10_labels"]
    assert set(sdata.coordinate_systems) == {"fov1", "fov1_um", "fov10", "fov10_um"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "sdata.zarr")
        back = read_zarr(tmp_path / "sdata.zarr")
        warnings.simplefilter("error")
        for data in (sdata, back):
            ten, one = find_regions(data)
            assert (ten.image_key, ten.labels_key, one.labels_key) == ("fov10", "fov10_labels", "fov1_labels")
            assert one.channels == sorted(NAMES) and one.pixel_size == ten.pixel_size == pytest.approx(0.377)
            np.testing.assert_array_equal(one.read_image([0, 1, 2], ALL, ALL), IMAGE[[2, 0, 1]])
            np.testing.assert_array_equal(ten.read_image([1], ALL, ALL)[0], IMAGE[0] + 1)
            np.testing.assert_array_equal(ten.read_labels(ALL, ALL), LABELS + 1)


def test_ome_tiffs_tell_names_and_pixel_size(tmp_path):
    save(tmp_path / "images" / "a.ome.tif", IMAGE, metadata=ome(325, unit="nm"), tile=(16, 16), compression="zlib")
    save(tmp_path / "images" / "b.ome.tif", IMAGE, metadata=ome())
    for fov in "ab":
        save(tmp_path / "masks" / f"{fov}.tif", LABELS)
    sdata = read_fovs(tmp_path / "images", tmp_path / "masks")
    assert set(sdata.coordinate_systems) == {"a", "a_um", "b"}
    with pytest.warns(UserWarning, match="pixel size of 'b' is not known"):
        a, b = find_regions(sdata)
    assert (a.pixel_size, b.pixel_size) == (pytest.approx(0.325), 0.5) and a.channels == NAMES
    np.testing.assert_array_equal(a.read_image([0, 1, 2], ALL, ALL), IMAGE)


def test_coarser_and_finer_masks_lie_on_their_image(tmp_path):
    save(tmp_path / "image.ome.tif", IMAGE, metadata=ome(0.5))
    save(tmp_path / "coarse.tif", LABELS[::2, ::2])
    save(tmp_path / "fine.tif", LABELS.repeat(2, axis=0).repeat(2, axis=1))
    for name, repeats, size in (("coarse", (1, 2), 0.5), ("fine", (2, 1), 0.25)):
        sdata = read_fovs(tmp_path / "image.ome.tif", tmp_path / f"{name}.tif")
        (region,) = find_regions(sdata)
        assert (region.image_repeat, region.labels_repeat) == repeats
        assert region.pixel_size == pytest.approx(size)
        to_um = get_transformation(sdata.labels["image_labels"], "image_um").to_affine_matrix(("y", "x"), ("y", "x"))
        assert to_um[0, 0] == pytest.approx(size * repeats[1])


def test_pixels_that_are_not_square_and_paths_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "x.ome.tif", IMAGE, metadata=ome(0.5, 0.6))
    with pytest.raises(ValueError, match=r"0\.6 x 0\.5 um \(y, x\) by its metadata; they must be square"):
        read_fovs(path)
    assert "x_um" in read_fovs("x.ome.tif", pixel_size=0.5).coordinate_systems
    with pytest.raises(ValueError, match="`pixel_size` is -1; it must be a number above 0"):
        read_fovs(path, pixel_size=-1)
    for name, paths in (("images", [["x.ome.tif"]]), ("masks", ["x.ome.tif", ["labels.tif"]])):
        with pytest.raises(TypeError, match=f"`{name}` is a list; it must be one path"):
            read_fovs(*paths)


def test_missing_masks_and_paths(folders):
    assert not read_fovs(str(folders / "images")).labels
    assert list(read_fovs(folders / "images" / "fov10").images) == ["fov10"]
    save(folders / "masks" / "fov1_whole_cell.tiff", LABELS[:-1])
    with pytest.raises(ValueError, match=r"fov1 is 40 x 60 pixels .*fov1_whole_cell\.tiff 39 x 60"):
        read_fovs(folders / "images", folders / "masks")
    (folders / "masks" / "fov1_whole_cell.tiff").unlink()
    with pytest.raises(ValueError, match="No mask for 'fov1'"):
        read_fovs(folders / "images", folders / "masks")
    for paths in ([folders / "nowhere"], [folders / "images", folders / "nowhere"]):
        with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
            read_fovs(*paths)


def test_channels_that_differ_between_fields_of_view(folders):
    (folders / "images" / "fov10" / "CD20.tiff").rename(folders / "images" / "fov10" / "CD4.tiff")
    with pytest.raises(ValueError, match=r"'fov1' and 'fov10' have different channels: \['CD20', 'CD4'\] are in one"):
        read_fovs(folders / "images", folders / "masks")
    with pytest.raises(ValueError, match=r"holds no channels \['CD4'\]; there is: \['CD20', 'CD3', 'CD8'\]"):
        read_fovs(folders / "images", channels=["CD3", "CD4"])
    sdata = read_fovs(folders / "images", folders / "masks", channels=["CD8", "CD3"])
    (region,) = find_regions(sdata, "fov1", pixel_size=1)
    assert region.channels == ["CD8", "CD3"]
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), IMAGE[[1, 0]])


def test_names_become_valid_and_must_not_clash(tmp_path):
    save(tmp_path / "a" / "Slide 1 (A,B).tif", IMAGE)
    save(tmp_path / "a" / "__x.tif", IMAGE)
    assert list(read_fovs(tmp_path / "a").images) == ["Slide_1__A_B_", "x"]
    for names in (("a b", "a_b"), ("a", "a_labels"), ("a", "__a"), ("fov", "FOV")):
        folders = [save(tmp_path / "-".join(names) / f"{name}.tif", IMAGE).parent for name in names]
        with pytest.raises(ValueError, match="would both have an element"):
            read_fovs(folders[0])
    for name in ("slide_um", "___"):
        with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
            read_fovs(save(tmp_path / name / f"{name}.tif", IMAGE))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.tif": IMAGE, "b.tif": IMAGE[0]}, r"files of one channel \(b\.tif, \.\.\.\) and of several \(a\.tif"),
        ({"f/a.tif": IMAGE[0], "b.tif": IMAGE}, r"folders with TIFF files \(f, \.\.\.\) and TIFF files \(b\.tif"),
        ({"a.tif": IMAGE, "a.ome.tif": IMAGE}, r"a\.ome\.tif and a\.tif beside it are of one name"),
        ({"CD3.tiff": IMAGE[0], "CD8.tiff": IMAGE[0, :-1]}, r"CD8\.tiff is of shape \(1, 39, 60\) .*of \(1, 40, 60\)"),
        ({"f/CD3.tiff": IMAGE[0], "f/CD8.tiff": IMAGE}, r"CD8\.tiff is of shape \(3, 40, 60\)"),
        ({}, "holds no TIFF files"),
    ],
)
def test_folders_that_are_not_clear(tmp_path, files, said):
    (tmp_path / "images").mkdir()
    for name, array in files.items():
        save(tmp_path / "images" / name, array)
    with pytest.raises(ValueError if files else FileNotFoundError, match=said):
        read_fovs(tmp_path / "images")


def test_names_of_channels_in_a_file(tmp_path):
    def names(path, channels=None):
        (image,) = read_fovs(path, channels=channels).images.values()
        np.testing.assert_array_equal(image.values, IMAGE)
        return list(image.coords["c"].values)

    plain = save(tmp_path / "fov" / "plain.tif", IMAGE)
    assert names(plain) == ["0", "1", "2"] and names(plain, ["x", "y", "z"]) == ["x", "y", "z"]
    # One file of many channels in a folder of its own.
    assert names(tmp_path, ["x", "y", "z"]) == ["x", "y", "z"]
    with pytest.raises(ValueError, match=r"`channels` has 2 names, but .*plain\.tif has 3 channels"):
        names(plain, ["x", "y"])
    twice = save(tmp_path / "x.ome.tif", IMAGE, metadata=ome(names=["CD3", "CD8", "CD3"]))
    with pytest.raises(ValueError, match=r"several channels named \['CD3'\]; name all"):
        names(twice)
    assert names(twice, ["x", "y", "z"]) == ["x", "y", "z"]
    (image,) = read_fovs(twice, make_unique=True).images.values()
    assert list(image.coords["c"].values) == ["CD3", "CD8", "CD3-1"]
    rgb = save(tmp_path / "rgb.ome.tif", IMAGE, photometric="rgb", planarconfig="separate", metadata=ome())
    assert names(rgb, NAMES) == NAMES


@pytest.mark.parametrize(
    "text",
    [
        "channel_number,cycle_number,marker_name,Filter\n1,1,CD3,\n2,1,CD8,\n3,2,CD20,\n",
        "channel_number,marker_name\n3,CD20\n1,CD3\n2,CD8\n",
        "marker_name,channel_number\nCD20,2\nCD3,0\nCD8,1\n",
        "channel,name,keep\nEr170,CD3,1\nDy162,CD8,1\nDy161,CD20,1\n",
        "channel_number,marker_name,remove\n1,CD3,\n2,bg,TRUE\n3,CD8,FALSE\n4,CD20,\n",
        "\ufeffcycle;Marker Name\r\n1;CD3\r\n1;CD8\r\n1;CD20\r\n\r\n",
        "marker_name\nCD3\nCD8\nCD20\n",
        "Panel A\nCD3\nCD8\nCD20\n",
        "CD3\nCD8\nCD20\n",
    ],
    ids=[
        "MCMICRO",
        "order",
        "from 0",
        "steinbock",
        "removed",
        "semicolons",
        "one column",
        "one of another name",
        "no heading",
    ],
)
def test_names_of_channels_in_a_csv_file(tmp_path, text):
    image = save(tmp_path / "x.tif", IMAGE)
    (tmp_path / "markers.csv").write_text(text, encoding="utf-8", newline="")
    sdata = read_fovs(image, channels=tmp_path / "markers.csv")
    assert list(sdata.images["x"].coords["c"].values) == NAMES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,CD3\n", r"has the columns \['a', 'b'\]; it needs 'marker_name', or one column"),
        ("", "it needs 'marker_name'"),
        ("cycle,marker_name\n1,CD3\n1,CD8,x\n", r"has 2 columns, but not in the row \['1', 'CD8', 'x'\]"),
        ("marker_name\nCD3\nCD8\n", r"`channels` has 2 names, but .*x\.tif has 3 channels"),
        ("cycle,marker_name\n", r"`channels` has 0 names, but .*x\.tif has 3 channels"),
    ],
)
def test_csv_files_that_do_not_do(tmp_path, text, said):
    (tmp_path / "markers.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_fovs(save(tmp_path / "x.tif", IMAGE), channels=str(tmp_path / "markers.csv"))
    with pytest.raises(FileNotFoundError, match="`channels` is 'CD3', and there is no such file; names go into a list"):
        read_fovs(tmp_path / "x.tif", channels="CD3")


def test_a_set_of_ome_files_in_a_folder_is_one_field_of_view(ome_set):
    assert list(find_fovs(ome_set)) == ["p0"] and list(read_fovs(ome_set).images["p0"].coords["c"].values) == list(
        "abc"
    )
    # A folder among others that hold fields of view.
    assert read_fovs(ome_set.parent).images["set"].shape == (3, 130, 170)


def test_where_pixel_sizes_come_from(tmp_path):
    save(tmp_path / "a.ome.tif", IMAGE, metadata=ome(0.5))
    save(tmp_path / "b.ome.tif", IMAGE, metadata=ome(), resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    save(tmp_path / "c.ome.tif", IMAGE, metadata=ome())
    sources = {"a": "OME-XML", "b": "resolution tag", "c": "unknown"}
    assert read_fovs(tmp_path).attrs["pixel_size_source"] == sources
    assert set(read_fovs(tmp_path, pixel_size=1).attrs["pixel_size_source"].values()) == {"argument"}


def test_large_elements_get_pyramids(tmp_path):
    labels = np.arange(4100 * 50, dtype=np.int32).reshape(50, 4100)
    save(tmp_path / "x.tif", np.stack([labels % 251] * 3).astype(np.uint16), tile=(16, 1024))
    save(tmp_path / "mask.tif", labels)
    sdata = with_pyramids(read_fovs(tmp_path / "x.tif", tmp_path / "mask.tif", pixel_size=0.5))
    image, mask = sdata.images["x"], sdata.labels["x_labels"]
    assert get_channel_names(image) == get_channel_names(read_fovs(tmp_path / "x.tif", pixel_size=0.5).images["x"])
    for element in (image, mask):
        sizes = [level["image"].sizes["x"] for level in element.children.values()]
        assert sizes == [4100, 2050, 1025, 512]
        assert set(get_transformation(element, get_all=True)) == {"x", "x_um"}
    np.testing.assert_array_equal(mask["scale0"]["image"], labels)
    np.testing.assert_array_equal(np.isin(mask["scale2"]["image"], labels[:, :]), True)
    (region,) = find_regions(sdata)
    np.testing.assert_array_equal(region.read_labels(slice(3, 5), slice(4000, 4100)), labels[3:5, 4000:])
    assert with_pyramids(sdata) is sdata and not isinstance(read_fovs(tmp_path / "x.tif").images["x"], type(image))
