import numpy as np
import pytest
import tifffile

from nimbus_sd.io.masks import find_masks, read_mask, relative_scale
from nimbus_sd.io.tiff import open_tiff


def folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def found(masks, *fovs, pattern=None):
    return [path.name for path in find_masks(masks, fovs, pattern).values()]


@pytest.mark.parametrize(
    ("files", "fovs", "expected"),
    [
        (["fov1.tif", "fov2.tiff"], ["fov2", "fov1"], ["fov2.tiff", "fov1.tif"]),
        (["fov1.tif", "fov1_nuclear.tif", "mask_fov1.tif"], ["fov1"], ["fov1.tif"]),
        (["fov1_whole.tif", "mask_fov1.tif"], ["fov1"], ["fov1_whole.tif"]),
        (["mask_fov1_a.tif"], ["fov1"], ["mask_fov1_a.tif"]),
        (["fov1mask.tif", "fov10mask.tif"], ["fov1", "fov10"], ["fov1mask.tif", "fov10mask.tif"]),
        (["a_mask.tif", "a_edge_mask.tif"], ["a", "a_edge"], ["a_mask.tif", "a_edge_mask.tif"]),
        (["R+1 (2)_mask.tif"], ["R+1 (2)"], ["R+1 (2)_mask.tif"]),
        (["a_data.ome.tif", "a_data2.tif"], ["a_data.tif_image"], ["a_data.ome.tif"]),
        (["a.tif_image_x.tif", "a.tif"], ["a.tif_image"], ["a.tif_image_x.tif"]),
    ],
)
def test_masks_by_name(tmp_path, files, fovs, expected):
    assert found(folder(tmp_path, *files), *fovs) == expected


def test_mask_of_another_field_of_view_is_none(tmp_path):
    masks = folder(tmp_path, "fov10.tif", "fov2_mask.tif")
    with pytest.raises(ValueError, match=r"No mask for 'fov1', 'other': no TIFF file in .* contains their name"):
        find_masks(masks, ["fov1", "fov2", "other"])


def test_several_masks_need_a_pattern(tmp_path):
    masks = folder(tmp_path, "fov1_nuclear.tiff", "fov1_whole_cell.tiff", "fov10_whole_cell.tiff")
    with pytest.raises(
        ValueError, match=r"Several masks for 'fov1': fov1_nuclear\.tiff, fov1_whole_cell\.tiff.*'\{fov\}_whole"
    ):
        find_masks(masks, ["fov1", "fov10"])
    expected = ["fov1_whole_cell.tiff", "fov10_whole_cell.tiff"]
    assert found(masks, "fov1", "fov10", pattern="{fov}_whole_cell.tiff") == expected
    assert found(masks, "fov1", "fov10", pattern="{fov}_w*") == expected
    with pytest.raises(ValueError, match=r"No mask for 'fov10': .* matches '{fov}_nuclear.tiff'"):
        find_masks(masks, ["fov1", "fov10"], "{fov}_nuclear.tiff")
    with pytest.raises(ValueError, match=r"must contain '{fov}'"):
        find_masks(masks, ["fov1"], "fov_nuclear.tiff")


def test_pattern_takes_names_literally(tmp_path):
    assert found(folder(tmp_path, "a[1].tif", "a1.tif"), "a[1]", pattern="{fov}.tif") == ["a[1].tif"]


@pytest.mark.parametrize(("name", "fovs"), [("a_b.tif", ["a", "b"]), ("a.tif", ["a.tif_1", "a.tif_2"])])
def test_one_mask_for_two_is_an_error(tmp_path, name, fovs):
    with pytest.raises(ValueError, match=f"{name} would be the mask of '{fovs[0]}' and of '{fovs[1]}'"):
        found(folder(tmp_path, name), *fovs)


def test_one_file_is_the_mask_of_one(tmp_path):
    path = folder(tmp_path, "anything.tif") / "anything.tif"
    assert find_masks(path, ["fov"]) == {"fov": path}
    with pytest.raises(ValueError, match=r"is one file, .* for 2 fields of view"):
        find_masks(path, ["a", "b"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_label_masks(tmp_path, dtype):
    labels = np.arange(12).reshape(3, 4).astype(dtype)
    for name, array in (("plain", labels), ("plane", labels[None])):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack")
        mask = read_mask(tmp_path / f"{name}.tif")
        assert mask.dtype == dtype
        np.testing.assert_array_equal(mask, labels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_qupath_rgb_masks(tmp_path, planar):
    labels = np.array([[0, 1, 255, 256], [65535, 65536, 70000, 2**24 - 1]])
    rgb = np.stack([labels >> 16, labels >> 8 & 255, labels & 255]).astype(np.uint8)
    path = tmp_path / "mask.tif"
    tifffile.imwrite(
        path, rgb if planar == "separate" else np.moveaxis(rgb, 0, -1), photometric="rgb", planarconfig=planar
    )
    mask = read_mask(path)
    assert mask.dtype == np.uint32
    np.testing.assert_array_equal(mask, labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_in_floats_are_labels(tmp_path, dtype):
    labels = np.array([[0, 1, 2], [70000, 2**24, 5]])
    tifffile.imwrite(tmp_path / "mask.tif", labels.astype(dtype), photometric="minisblack")
    mask = read_mask(tmp_path / "mask.tif")
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, labels)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 2.0**25])
def test_other_numbers_in_floats_are_no_labels(tmp_path, value):
    tifffile.imwrite(tmp_path / "mask.tif", np.array([[0, value]], np.float32), photometric="minisblack")
    with pytest.raises(ValueError, match=r"mask\.tif holds float32 that are no labels"):
        read_mask(tmp_path / "mask.tif").compute()


@pytest.mark.parametrize(
    "array", [np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.uint8), np.zeros((4, 4), bool)]
)
def test_what_is_no_mask(tmp_path, array):
    tifffile.imwrite(tmp_path / "mask.tif", array, photometric="minisblack")
    with pytest.raises(ValueError, match=r"mask\.tif is of shape .* it must hold one plane of integer labels"):
        read_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize(
    ("size", "mask_size", "scale"),
    [((20, 30), (20, 30), 1), ((21, 30), (10, 15), 2), ((21, 30), (11, 15), 2), ((5, 6), (15, 20), 1 / 3)],
)
def test_masks_may_be_finer_or_coarser(tmp_path, size, mask_size, scale):
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(size, np.uint8))
    mask = np.zeros(mask_size, int)
    assert relative_scale(open_tiff(tmp_path / "image.tif"), mask, tmp_path / "mask.tif") == pytest.approx(scale)


@pytest.mark.parametrize("mask_size", [(20, 31), (19, 30), (30, 20), (13, 20), (10, 30), (40, 62)])
def test_masks_of_another_shape_are_an_error(tmp_path, mask_size):
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((20, 30), np.uint8))
    with pytest.raises(
        ValueError, match=rf"image\.tif is 20 x 30 pixels .*mask\.tif {mask_size[0]} x {mask_size[1]}; one"
    ):
        relative_scale(open_tiff(tmp_path / "image.tif"), np.zeros(mask_size, int), tmp_path / "mask.tif")
