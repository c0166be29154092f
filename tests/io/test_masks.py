"""Masks: which file is whose, how labels are stored, and sizes that fit."""

import imagecodecs
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
    # Pictures of masks beside them do not count, unless they are meant.
    masks = folder(tmp_path, "f1_whole_cell.png")
    assert mask_names(masks, "f1", pattern="{fov}_whole_cell.png") == ["f1_whole_cell.png"]
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    assert mask_names(folder(arrays, "f1.npy", "f10.png"), "f1", "f10") == ["f1.npy", "f10.png"]
    with pytest.raises(ValueError, match=r"is one file, .* for 2 fields of view"):
        find_masks(path, ["a", "b"])


LABELS = np.array([[0, 1, 255, 256], [65535, 65536, 70000, 2**24 - 1]])


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64])
def test_whole_numbers_are_labels(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "mask.tif", LABELS.astype(dtype), photometric="minisblack")
    mask = read_mask(tmp_path / "mask.tif")
    assert mask.dtype == (np.int64 if np.dtype(dtype).kind == "f" else dtype)
    np.testing.assert_array_equal(mask, LABELS)


@pytest.mark.parametrize("opacity", [[], [255]])
@pytest.mark.parametrize("planar, axis", [("contig", -1), ("separate", 0)])
def test_qupath_rgb_masks(tmp_path, planar, axis, opacity):
    planes = [LABELS >> 16, LABELS >> 8 & 255, LABELS & 255, *(np.full_like(LABELS, x) for x in opacity)]
    kwargs = {"photometric": "rgb", "planarconfig": planar, "extrasamples": ["unassalpha"] * len(opacity)}
    tifffile.imwrite(tmp_path / "mask.tif", np.stack(planes, axis).astype(np.uint8), **kwargs)
    mask = read_mask(tmp_path / "mask.tif")
    assert mask.dtype == np.uint32
    np.testing.assert_array_equal(mask, LABELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_masks(tmp_path, dtype):
    labels = (LABELS % 256).astype(dtype)
    (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(labels))
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, labels)
    rgba = np.stack([LABELS >> 16, LABELS >> 8 & 255, LABELS & 255, LABELS * 0 + 255], axis=-1).astype(np.uint8)
    for rgb in (rgba[..., :3], rgba):
        (tmp_path / "rgb.PNG").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(rgb)))
        np.testing.assert_array_equal(read_mask(tmp_path / "rgb.PNG"), LABELS)
    (tmp_path / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:45])
    with pytest.raises(ValueError, match=r"mask\.png cannot be read as a PNG file"):
        read_mask(tmp_path / "mask.png").compute()
    for damage in (b"", b"no picture, but long enough for a header"):
        (tmp_path / "mask.png").write_bytes(damage)
        with pytest.raises(ValueError, match=r"mask\.png cannot be read as a PNG file"):
            read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(40, 60), (1, 40, 60), (40, 60, 1), (1, 40, 60, 1)])
def test_npy_and_tiff_masks_whatever_axes_of_one_they_have(tmp_path, dtype, shape):
    labels = np.arange(40 * 60).reshape(40, 60)
    np.save(tmp_path / "mask.npy", labels.astype(dtype).reshape(shape))
    tifffile.imwrite(tmp_path / "mask.tif", labels.astype(dtype).reshape(shape))
    for name in ("mask.npy", "mask.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), labels)


def test_what_is_no_array_of_labels(tmp_path):
    np.save(tmp_path / "x_seg.npy", np.array({"masks": LABELS}), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x_seg\.npy cannot be read as an array of numbers.*save the masks alone"):
        read_mask(tmp_path / "x_seg.npy")
    np.save(tmp_path / "row.npy", LABELS[0])
    with pytest.raises(ValueError, match=r"row\.npy is of shape \(4,\); it must have two axes"):
        read_mask(tmp_path / "row.npy")
    np.save(tmp_path / "binary.npy", LABELS > 0)
    with pytest.raises(ValueError, match=r"type bool; .* Number its cells first, as `skimage.measure.label\(mask\)`"):
        read_mask(tmp_path / "binary.npy")


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("n", [2, 3])
def test_of_several_planes_one_must_be_chosen(tmp_path, axis, n):
    labels = np.arange(40 * 60, dtype=np.int32).reshape(40, 60)
    planes = np.stack([labels + i for i in range(n)], axis)
    np.save(tmp_path / "mask.npy", planes)
    tifffile.imwrite(tmp_path / "mask.tif", planes)
    for name in ("mask.npy", "mask.tif"):
        with pytest.raises(ValueError, match=rf"Choose one of its planes with `mask_plane` .*0 to {n - 1}"):
            read_mask(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name, 1), labels + 1)
        with pytest.raises(ValueError, match=rf"`mask_plane` is {n}, but .* has the planes 0 to {n - 1}"):
            read_mask(tmp_path / name, n)


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
