import numpy as np
import pytest
import tifffile

from nimbus_sd.io.fovs import _read_image as read_image
from nimbus_sd.io.fovs import find_fovs

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 20, 30), dtype=np.uint8)


def save(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", **kwargs)
    return path


def test_folders_of_channels_are_fields_of_view(tmp_path):
    for fov in ("fov2", "fov10"):
        save(tmp_path / fov / "CD3.tiff", IMAGE[0])
    (tmp_path / "notes").mkdir()
    assert find_fovs(tmp_path) == {"fov10": tmp_path / "fov10", "fov2": tmp_path / "fov2"}
    assert find_fovs(tmp_path / "fov2") == {"fov2": tmp_path / "fov2"}


def test_files_of_channels_are_fields_of_view(tmp_path):
    for fov in ("b.ome.tif", "a.tiff"):
        save(tmp_path / fov, IMAGE)
    assert find_fovs(tmp_path) == {"a": tmp_path / "a.tiff", "b": tmp_path / "b.ome.tif"}
    assert find_fovs(tmp_path / "b.ome.tif") == {"b": tmp_path / "b.ome.tif"}


def test_folders_that_are_not_clear(tmp_path):
    save(tmp_path / "mixed" / "a.tif", IMAGE)
    save(tmp_path / "mixed" / "b.tif", IMAGE[0])
    with pytest.raises(ValueError, match=r"files of one channel \(b\.tif, \.\.\.\) and of several \(a\.tif"):
        find_fovs(tmp_path / "mixed")
    save(tmp_path / "both" / "fov" / "a.tif", IMAGE[0])
    save(tmp_path / "both" / "b.tif", IMAGE)
    with pytest.raises(ValueError, match=r"folders with TIFF files \(fov, \.\.\.\) and TIFF files \(b\.tif"):
        find_fovs(tmp_path / "both")
    save(tmp_path / "twice" / "a.tif", IMAGE)
    save(tmp_path / "twice" / "a.ome.tif", IMAGE)
    with pytest.raises(ValueError, match=r"a\.ome\.tif and a\.tif beside it are of one name"):
        find_fovs(tmp_path / "twice")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no TIFF files"):
        find_fovs(tmp_path / "empty")


def test_channels_are_files_by_name(tmp_path):
    for name, plane in zip(("CD8", "CD3", "HLA DR"), IMAGE, strict=True):
        save(tmp_path / f"{name}.tiff", plane)
    image = read_image(tmp_path, None)
    assert image.channels == ["CD3", "CD8", "HLA DR"]
    np.testing.assert_array_equal(image.pixels, IMAGE[[1, 0, 2]])
    chosen = read_image(tmp_path, ["HLA DR", "CD8"])
    assert chosen.channels == ["HLA DR", "CD8"]
    np.testing.assert_array_equal(chosen.pixels, IMAGE[[2, 0]])
    with pytest.raises(ValueError, match=r"holds no channels \['CD20'\]; there is: \['CD3', 'CD8', 'HLA DR'\]"):
        read_image(tmp_path, ["CD3", "CD20"])


def test_files_of_a_folder_must_fit(tmp_path):
    save(tmp_path / "a" / "CD3.tiff", IMAGE[0])
    save(tmp_path / "a" / "CD8.tiff", IMAGE[0, :-1])
    with pytest.raises(ValueError, match=r"CD8\.tiff is of shape \(1, 19, 30\) .*CD3\.tiff of \(1, 20, 30\)"):
        read_image(tmp_path / "a", None)
    save(tmp_path / "b" / "CD3.tiff", IMAGE[0])
    save(tmp_path / "b" / "CD8.tiff", IMAGE)
    with pytest.raises(ValueError, match=r"CD8\.tiff is of shape \(3, 20, 30\)"):
        read_image(tmp_path / "b", None)


def test_one_file_of_many_channels_in_a_folder(tmp_path):
    save(tmp_path / "fov" / "stack.tif", IMAGE)
    image = read_image(tmp_path / "fov", ["a", "b", "c"])
    assert image.channels == ["a", "b", "c"]
    np.testing.assert_array_equal(image.pixels, IMAGE)


def test_names_of_channels_in_a_file(tmp_path):
    plain = save(tmp_path / "plain.tif", IMAGE)
    assert read_image(plain, None).channels == ["0", "1", "2"]
    assert read_image(plain, ["x", "y", "z"]).channels == ["x", "y", "z"]
    with pytest.raises(ValueError, match=r"`channels` has 2 names, but .*plain\.tif has 3 channels"):
        read_image(plain, ["x", "y"])
    twice = save(tmp_path / "x.ome.tif", IMAGE, metadata={"axes": "CYX", "Channel": {"Name": ["CD3", "CD8", "CD3"]}})
    with pytest.raises(ValueError, match=r"several channels named \['CD3'\]; name all"):
        read_image(twice, None)
    assert read_image(twice, ["x", "y", "z"]).channels == ["x", "y", "z"]
