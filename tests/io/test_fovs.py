import warnings

import numpy as np
import pytest
import tifffile
from spatialdata import read_zarr
from spatialdata.transformations import get_transformation

from nimbus_sd.io import read_fovs
from nimbus_sd.spatial import find_regions

ALL = slice(None)
IMAGE = np.random.default_rng(0).integers(0, 60000, (3, 40, 60), dtype=np.uint16)
LABELS = np.arange(40 * 60, dtype=np.int32).reshape(40, 60) // 7
NAMES = ["CD3", "CD8", "CD20"]


def save(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", **kwargs)


def ome(**metadata):
    return {"axes": "CYX", "Channel": {"Name": NAMES}, **metadata}


def square(size, unit="\u00b5m"):
    return {"PhysicalSizeX": size, "PhysicalSizeXUnit": unit, "PhysicalSizeY": size, "PhysicalSizeYUnit": unit}


@pytest.fixture
def folders(tmp_path):
    """Two fields of view as folders of channels, with masks."""
    for i, fov in enumerate(("fov1", "fov10")):
        for name, plane in zip(NAMES, IMAGE + i, strict=True):
            save(tmp_path / "images" / fov / f"{name}.tiff", plane)
        save(tmp_path / "masks" / f"{fov}_whole_cell.tiff", LABELS + i)
    return tmp_path


def test_folders_of_channels(folders):
    sdata = read_fovs(folders / "images", folders / "masks")
    assert list(sdata.images) == ["fov1", "fov10"]
    assert list(sdata.labels) == ["fov1_labels", "fov10_labels"]
    assert set(sdata.coordinate_systems) == {"fov1", "fov10"}
    one, ten = find_regions(sdata, "fov1", pixel_size=0.5) + find_regions(sdata, "fov10", pixel_size=0.5)
    assert one.channels == sorted(NAMES)
    np.testing.assert_array_equal(one.read_image([2], ALL, ALL)[0], IMAGE[1])
    np.testing.assert_array_equal(ten.read_image([1], ALL, ALL)[0], IMAGE[0] + 1)
    np.testing.assert_array_equal(ten.read_labels(ALL, ALL), LABELS + 1)
    assert [(r.image_key, r.labels_key) for r in find_regions(sdata, pixel_size=1)] == [
        ("fov10", "fov10_labels"),
        ("fov1", "fov1_labels"),
    ]


def test_pixel_size_of_the_argument_makes_a_system_in_micrometres(folders):
    sdata = read_fovs(folders / "images", folders / "masks", pixel_size=0.377)
    assert set(sdata.coordinate_systems) == {"fov1", "fov1_um", "fov10", "fov10_um"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [region.pixel_size for region in find_regions(sdata)] == [pytest.approx(0.377)] * 2


def test_ome_tiffs_tell_names_and_pixel_size(tmp_path):
    save(tmp_path / "images" / "a.ome.tif", IMAGE, metadata=ome(**square(325, "nm")), tile=(16, 16), compression="zlib")
    save(tmp_path / "images" / "b.ome.tif", IMAGE, metadata=ome())
    for fov in "ab":
        save(tmp_path / "masks" / f"{fov}.tif", LABELS)
    sdata = read_fovs(tmp_path / "images", tmp_path / "masks")
    assert set(sdata.coordinate_systems) == {"a", "a_um", "b"}
    with pytest.warns(UserWarning, match="pixel size of 'b' is not known"):
        a, b = find_regions(sdata)
    assert (a.pixel_size, b.pixel_size) == (pytest.approx(0.325), 0.5)
    assert a.channels == NAMES
    np.testing.assert_array_equal(a.read_image([0, 1, 2], ALL, ALL), IMAGE)


def test_coarser_and_finer_masks_lie_on_their_image(tmp_path):
    save(tmp_path / "image.ome.tif", IMAGE, metadata=ome(**square(0.5)))
    save(tmp_path / "coarse.tif", LABELS[::2, ::2])
    save(tmp_path / "fine.tif", LABELS.repeat(2, axis=0).repeat(2, axis=1))
    for name, repeats, size in (("coarse", (1, 2), 0.5), ("fine", (2, 1), 0.25)):
        sdata = read_fovs(tmp_path / "image.ome.tif", tmp_path / f"{name}.tif")
        (region,) = find_regions(sdata)
        assert (region.image_repeat, region.labels_repeat) == repeats
        assert region.pixel_size == pytest.approx(size)
        to_um = get_transformation(sdata.labels["image_labels"], "image_um").to_affine_matrix(("y", "x"), ("y", "x"))
        assert to_um[0, 0] == pytest.approx(size * repeats[1])


def test_pixels_that_are_not_square(tmp_path):
    rectangular = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.6}
    save(tmp_path / "x.ome.tif", IMAGE, metadata=ome(**rectangular))
    with pytest.raises(ValueError, match=r"0\.6 x 0\.5 um \(y, x\) by its metadata; they must be square"):
        read_fovs(tmp_path / "x.ome.tif")
    assert "x_um" in read_fovs(tmp_path / "x.ome.tif", pixel_size=0.5).coordinate_systems
    with pytest.raises(ValueError, match="`pixel_size` is -1; it must be a number above 0"):
        read_fovs(tmp_path / "x.ome.tif", pixel_size=-1)


@pytest.mark.parametrize(
    "images, masks, said",
    [
        (["image.ome.tif"], ["labels.tif"], "`images` is a list; it must be one path, of a folder or of a single file"),
        ("image.ome.tif", ["labels.tif"], "`masks` is a list; it must be one path"),
        (IMAGE, None, "`images` is a ndarray"),
        (None, None, "`images` is a NoneType"),
    ],
)
def test_one_path_each(tmp_path, monkeypatch, images, masks, said):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "image.ome.tif", IMAGE, metadata=ome())
    save(tmp_path / "labels.tif", LABELS)
    with pytest.raises(TypeError, match=said):
        read_fovs(images, masks)
    assert list(read_fovs("image.ome.tif", "labels.tif").labels) == ["image_labels"]


def test_written_and_read_back(tmp_path, folders):
    sdata = read_fovs(folders / "images", folders / "masks", pixel_size=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "sdata.zarr")
        back = read_zarr(tmp_path / "sdata.zarr")
    ten, one = find_regions(back)
    assert one.channels == sorted(NAMES)
    np.testing.assert_array_equal(one.read_image([0, 1, 2], ALL, ALL), IMAGE[[2, 0, 1]])
    np.testing.assert_array_equal(ten.read_labels(ALL, ALL), LABELS + 1)


def test_nothing_is_read_before_it_is_needed(folders):
    sdata = read_fovs(folders / "images", folders / "masks")
    (folders / "images" / "fov1" / "CD3.tiff").unlink()
    (region,) = find_regions(sdata, "fov1", pixel_size=1)
    assert region.read_image([region.channels.index("CD8")], ALL, ALL).any()
    with pytest.raises(FileNotFoundError, match="Image 'fov1', channel\\(s\\) 'CD3', cannot be read in rows 0 to 40"):
        region.read_image([region.channels.index("CD3")], ALL, ALL)


def test_images_without_masks(folders):
    sdata = read_fovs(str(folders / "images"))
    assert list(sdata.images) == ["fov1", "fov10"]
    assert not sdata.labels


def test_missing_masks_and_paths_are_errors(folders):
    (folders / "masks" / "fov1_whole_cell.tiff").unlink()
    with pytest.raises(ValueError, match="No mask for 'fov1'"):
        read_fovs(folders / "images", folders / "masks")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_fovs(folders / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_fovs(folders / "images", folders / "nowhere")


def test_mask_of_another_size_is_an_error(folders):
    save(folders / "masks" / "fov1_whole_cell.tiff", LABELS[:-1])
    with pytest.raises(ValueError, match=r"fov1 is 40 x 60 pixels .*fov1_whole_cell\.tiff 39 x 60"):
        read_fovs(folders / "images", folders / "masks")


def test_channels_that_differ_between_fields_of_view(folders):
    (folders / "images" / "fov10" / "CD20.tiff").rename(folders / "images" / "fov10" / "CD4.tiff")
    with pytest.raises(
        ValueError, match=r"'fov1' and 'fov10' have different channels: \['CD20', 'CD4'\] are in one only"
    ):
        read_fovs(folders / "images", folders / "masks")
    sdata = read_fovs(folders / "images", folders / "masks", channels=["CD8", "CD3"])
    assert find_regions(sdata, "fov1", pixel_size=1)[0].channels == ["CD8", "CD3"]


def test_names_become_valid_and_must_not_clash(tmp_path):
    save(tmp_path / "a" / "Slide 1 (A,B).tif", IMAGE)
    save(tmp_path / "a" / "__x.tif", IMAGE)
    assert list(read_fovs(tmp_path / "a").images) == ["Slide_1__A_B_", "x"]
    for first, second in (("a b", "a_b"), ("a", "a_labels"), ("a", "__a"), ("fov", "FOV")):
        folder = tmp_path / f"{first}-{second}"
        save(folder / f"{first}.tif", IMAGE)
        save(folder / f"{second}.tif", IMAGE)
        with pytest.raises(ValueError, match="would both have an element"):
            read_fovs(folder)
    for name in ("slide_um", "___"):
        save(tmp_path / name / f"{name}.tif", IMAGE)
        with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
            read_fovs(tmp_path / name)


def test_codex_of_lymphoid_tissue(real_tissue):
    folder = real_tissue / "codex_lymphoid"
    sdata = read_fovs(folder / "image.ome.tif", folder / "labels.tif", pixel_size=0.5)
    (region,) = find_regions(sdata, channels=["CD21", "DAPI"])
    assert region.shape == (501, 501)
    assert len(sdata.images["image"].coords["c"]) == 56
    image = tifffile.imread(folder / "image.ome.tif")
    np.testing.assert_array_equal(
        region.read_image([0, 1], slice(100, 300), slice(250, 501)), image[[3, 0], 100:300, 250:]
    )
    labels = region.read_labels(ALL, ALL)
    assert (len(np.unique(labels)) - 1, labels.max()) == (597, 9145)


def test_vectra_of_lymphoid_tissue(real_tissue):
    folder = real_tissue / "vectra_lymphoid"
    sdata = read_fovs(folder / "image.ome.tif", folder / "labels.tif", pixel_size=0.5)
    (region,) = find_regions(sdata)
    assert region.channels == ["Alexa 594", "Cy3", "Cy5", "DAPI", "FITC"]
    assert region.dtype == np.float32
    np.testing.assert_array_equal(region.read_image(range(5), ALL, ALL), tifffile.imread(folder / "image.ome.tif"))
    assert len(np.unique(region.read_labels(ALL, ALL))) - 1 == 270


def test_three_channels_that_were_stored_as_rgb_are_channels_still(tmp_path):
    tifffile.imwrite(tmp_path / "x.ome.tif", IMAGE, photometric="rgb", planarconfig="separate", metadata=ome())
    tifffile.imwrite(tmp_path / "cells.tif", LABELS)
    (region,) = find_regions(read_fovs(tmp_path / "x.ome.tif", tmp_path / "cells.tif", channels=NAMES), pixel_size=1)
    np.testing.assert_array_equal(region.read_image([0, 1, 2], ALL, ALL), IMAGE)
