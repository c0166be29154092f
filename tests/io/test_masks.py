"""Masks: which file is whose, how labels are stored, and sizes that fit."""

import numpy as np
import pytest
import tifffile

from nimbus_sd.io.masks import find_masks, read_mask, relative_scale
from nimbus_sd.io.tiff import open_tiff


def folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def mask_names(masks, *fovs, pattern=None):
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
    assert mask_names(folder(tmp_path, *files), *fovs) == expected


@pytest.mark.parametrize(
    ("files", "fovs", "pattern", "said"),
    [
        (["fov10.tif", "b.tif"], ["fov1", "b", "x"], None, "No mask for 'fov1', 'x': .* contains their name"),
        (["a_1.tif", "a_2.tif"], ["a"], None, r"Several masks for 'a': a_1\.tif, a_2\.tif.*'\{fov\}_whole"),
        (["a_1.tif"], ["a", "b"], "{fov}_1.tif", "No mask for 'b': .* matches '{fov}_1.tif'"),
        (["a_1.tif"], ["a"], "fov_1.tif", "must contain '{fov}'"),
        (["a_b.tif"], ["a", "b"], None, "a_b.tif would be the mask of 'a' and of 'b'"),
        (["a.tif"], ["a.tif_1", "a.tif_2"], None, "a.tif would be the mask of 'a.tif_1' and of 'a.tif_2'"),
    ],
)
def test_masks_that_are_not_clear(tmp_path, files, fovs, pattern, said):
    with pytest.raises(ValueError, match=said):
        find_masks(folder(tmp_path, *files), fovs, pattern)


def test_masks_by_a_pattern_or_as_one_file(tmp_path):
    masks = folder(tmp_path, "f1_nuclear.tiff", "f1_whole_cell.tiff", "f10_whole_cell.tiff", "a[1].tif", "a1.tif")
    for pattern in ("{fov}_whole_cell.tiff", "{fov}_w*"):
        assert mask_names(masks, "f1", "f10", pattern=pattern) == ["f1_whole_cell.tiff", "f10_whole_cell.tiff"]
    # Names are taken literally.
    assert mask_names(masks, "a[1]", pattern="{fov}.tif") == ["a[1].tif"]
    path = folder(tmp_path, "anything.tif") / "anything.tif"
    assert find_masks(path, ["fov"]) == {"fov": path}
    with pytest.raises(ValueError, match=r"is one file, .* for 2 fields of view"):
        find_masks(path, ["a", "b"])


LABELS = np.array([[0, 1, 255, 256], [65535, 65536, 70000, 2**24 - 1]])


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64])
def test_whole_numbers_are_labels(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "mask.tif", LABELS.astype(dtype), photometric="minisblack")
    mask = read_mask(tmp_path / "mask.tif")
    assert mask.dtype == (np.int64 if np.dtype(dtype).kind == "f" else dtype)
    np.testing.assert_array_equal(mask, LABELS)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_qupath_rgb_masks(tmp_path, planar):
    rgb = np.stack([LABELS >> 16, LABELS >> 8 & 255, LABELS & 255]).astype(np.uint8)
    array = rgb if planar == "separate" else np.moveaxis(rgb, 0, -1)
    tifffile.imwrite(tmp_path / "mask.tif", array, photometric="rgb", planarconfig=planar)
    mask = read_mask(tmp_path / "mask.tif")
    assert mask.dtype == np.uint32
    np.testing.assert_array_equal(mask, LABELS)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        *((np.array([[0, x]], np.float32), "holds float32 that are no labels") for x in (0.5, np.nan, np.inf, 2.0**25)),
        (np.zeros((2, 4, 4), np.uint8), "must hold one plane of integer labels"),
        (np.zeros((4, 4), bool), "must hold one plane of integer labels"),
    ],
)
def test_what_is_no_mask(tmp_path, array, said):
    tifffile.imwrite(tmp_path / "mask.tif", array, photometric="minisblack")
    with pytest.raises(ValueError, match=rf"mask\.tif .*{said}"):
        read_mask(tmp_path / "mask.tif").compute()


@pytest.mark.parametrize(
    ("size", "mask_size", "scale"),
    [
        *(((20, 30), (20, 30), 1), ((21, 30), (10, 15), 2), ((21, 30), (11, 15), 2), ((5, 6), (15, 20), 1 / 3)),
        *(((20, 30), size, None) for size in ((20, 31), (19, 30), (30, 20), (13, 20), (10, 30), (40, 62))),
    ],
)
def test_masks_may_be_finer_or_coarser_by_a_whole_factor(tmp_path, size, mask_size, scale):
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(size, np.uint8))
    image, mask = open_tiff(tmp_path / "image.tif"), np.zeros(mask_size, int)
    if scale is not None:
        assert relative_scale(image, mask, tmp_path / "mask.tif") == pytest.approx(scale)
        return
    with pytest.raises(ValueError, match=rf"image\.tif is 20 x 30 .*mask\.tif {mask_size[0]} x {mask_size[1]}; one"):
        relative_scale(image, mask, tmp_path / "mask.tif")
