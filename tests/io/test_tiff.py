"""TIFF files, whole and damaged, plain and odd."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nimbus_sd.io.tiff import list_tiffs, open_tiff, stem

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 60000, (5, 130, 170), dtype=np.uint16)
RGB = RNG.integers(0, 255, (3, 130, 170), dtype=np.uint8)
OME = {"axes": "CYX", "Channel": {"Name": list("abcde")}}


def written(path, array, **kwargs):
    tifffile.imwrite(path, array, **kwargs)
    return open_tiff(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"imagej": True, "metadata": {"axes": "CYX"}},
        {"tile": (32, 48), "compression": "zlib"},
        {"rowsperstrip": 7, "compression": "lzw"},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"bigtiff": True, "photometric": "minisblack"},
    ],
)
def test_channels_of_plain_tiffs(tmp_path, options):
    tiff = written(tmp_path / "image.tif", IMAGE, **options)
    assert (tiff.rgb, tiff.channels, tiff.pixel_size) == (False, None, None)
    window = tiff.pixels[3:4, 17:65, 40:150].compute()
    np.testing.assert_array_equal(window, IMAGE[3:4, 17:65, 40:150])
    assert window.dtype == np.uint16
    np.testing.assert_array_equal(tiff.pixels.compute(), IMAGE)


def test_ome_names_and_pixel_sizes(tmp_path):
    for x, x_unit, y, y_unit, expected in (
        (0.5, None, 0.5, None, (0.5, 0.5)),
        (325, "nm", 0.326, "\u00b5m", (0.326, 0.325)),
        (5e-4, "mm", 5e-4, "mm", (0.5, 0.5)),
        (0.5, None, None, None, None),
        (1, "pixel", 1, "pixel", None),
        (1, "reference frame", 1, "reference frame", None),
        (0.5, "micrometer", 0.5, "Microns", (0.5, 0.5)),
        (500, "nanometre", 5e-4, "MILLIMETER", (0.5, 0.5)),
        (0.5, "\u00c2\u00b5m", 5000, "\u00c5", (0.5, 0.5)),
        (0.5 / 25400, "in", 0.5 / 25.4, "thou", (0.5, 0.5)),
        (0, None, 0, None, None),
    ):
        sizes = {"PhysicalSizeX": x, "PhysicalSizeXUnit": x_unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": y_unit}
        metadata = OME | {key: value for key, value in sizes.items() if value is not None}
        tiff = written(tmp_path / "x.ome.tif", IMAGE, metadata=metadata, compression="zlib", tile=(64, 64))
        assert tiff.channels == list("abcde")
        assert tiff.pixel_size == (expected if expected is None else pytest.approx(expected))
    np.testing.assert_array_equal(tiff.pixels, IMAGE)
    # A number stands for a name that is missing.
    for names, expected in (({"Channel": {"Name": ["a", "", "c", "d", "e"]}}, ["a", "1", "c", "d", "e"]), ({}, None)):
        assert written(tmp_path / "y.ome.tif", IMAGE, metadata={"axes": "CYX"} | names).channels == expected


def test_axes_and_levels_of_one_image(tmp_path):
    for planar, array in (("contig", np.moveaxis(RGB, 0, -1)), ("separate", RGB)):
        tiff = written(tmp_path / f"{planar}.tif", array, photometric="rgb", planarconfig=planar)
        assert tiff.rgb
        np.testing.assert_array_equal(tiff.pixels, RGB)
    np.testing.assert_array_equal(written(tmp_path / "a.tif", IMAGE[:1]).pixels, IMAGE[:1])
    np.testing.assert_array_equal(written(tmp_path / "b.tif", IMAGE[0]).pixels, IMAGE[:1])
    tiff = written(tmp_path / "c.ome.tif", IMAGE[None, :, None], metadata={"axes": "TCZYX"})
    np.testing.assert_array_equal(tiff.pixels, IMAGE)
    # A pyramid gives its full resolution.
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE, subifds=1, tile=(64, 64), compression="zlib", metadata=OME)
        writer.write(IMAGE[:, ::2, ::2], subfiletype=1, tile=(64, 64), compression="zlib")
    np.testing.assert_array_equal(open_tiff(path).pixels, IMAGE)


def test_stacks_are_an_error_unless_their_planes_are_channels(tmp_path):
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, IMAGE, metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match=r"has the axes Z: 5, Y: 130, X: 170; .*name them with `channels`"):
        open_tiff(path)
    np.testing.assert_array_equal(open_tiff(path, planes_are_channels=True).pixels, IMAGE)
    tifffile.imwrite(path, IMAGE[None].repeat(2, axis=0), metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match="Z: 2, C: 5"):
        open_tiff(path, planes_are_channels=True)


def test_axes_of_length_one_do_not_count_wherever_they_are(tmp_path):
    for array in (IMAGE[None], IMAGE[None, None], IMAGE[..., None], IMAGE[:, None], IMAGE[None, :, None, ..., None]):
        tiff = written(tmp_path / "x.tif", array, photometric="minisblack")
        np.testing.assert_array_equal(tiff.pixels, IMAGE)
        np.testing.assert_array_equal(tiff.pixels[1:3, 40:50, 7:9], IMAGE[1:3, 40:50, 7:9])


def several(path, *images):
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, array in images:
            photometric = "rgb" if array.dtype == np.uint8 else "minisblack"
            writer.write(array, photometric=photometric, metadata={"Name": name, "PhysicalSizeX": len(name)} | SQUARE)
    return path


SQUARE = {"PhysicalSizeY": 0.5}


def test_the_largest_image_that_is_not_in_colour_is_read(tmp_path, recwarn):
    thumbnail, colour = ("thumbnail", IMAGE[0, ::8, ::8]), ("macro", np.zeros((300, 400, 3), np.uint8))
    for images in ([thumbnail, ("slide", IMAGE)], [colour, ("slide", IMAGE), thumbnail]):
        tiff = open_tiff(several(tmp_path / "x.ome.tif", *images))
        np.testing.assert_array_equal(tiff.pixels, IMAGE)
        assert tiff.pixel_size == (0.5, 5)
    assert not recwarn
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for plane in (thumbnail[1], *IMAGE):
            writer.write(plane, metadata=None)
    np.testing.assert_array_equal(open_tiff(tmp_path / "pages.tif").pixels, IMAGE)
    # What is neither a thumbnail nor a level of a pyramid is not left out in silence.
    path = several(tmp_path / "y.ome.tif", ("a", IMAGE[:, :90]), ("b", IMAGE))
    with pytest.warns(UserWarning, match=r"y\.ome\.tif holds several images; the largest is read, number 1.*0: 'a'"):
        np.testing.assert_array_equal(open_tiff(path).pixels, IMAGE)


def test_of_images_of_one_size_one_must_be_chosen(tmp_path):
    path = several(tmp_path / "x.ome.tif", ("scene 1", IMAGE[:, ::-1]), ("scene 2", IMAGE), ("macro", RGB))
    with pytest.raises(
        ValueError, match=r"x\.ome\.tif holds several images of one size\. Choose .*`series`.*1: 'scene 2'"
    ):
        open_tiff(path)
    for series in ("scene 2", 1, "1"):
        np.testing.assert_array_equal(open_tiff(path, series=series).pixels, IMAGE)
    for series in ("scene 3", 3):
        with pytest.raises(ValueError, match=rf"holds 0 images {series!r}. Choose .*0: 'scene 1'"):
            open_tiff(path, series=series)


def test_names_and_pixel_sizes_outside_of_ome(tmp_path):
    path, names = tmp_path / "x.ome.tiff", list("abcde")
    with tifffile.TiffWriter(path, ome=False) as writer:
        for name, plane in zip(names, IMAGE, strict=True):
            writer.write(plane, extratags=[(285, "s", 0, name, True)], metadata=None)
    assert open_tiff(path).channels == names
    for unit, um in (
        ("um", 1),
        ("\\u00B5m", 1),
        ("micron", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("inch", 25400),
        ("pixel", None),
    ):
        per = (um or 1) / 0.325
        metadata = {"axes": "CYX", "unit": unit, "Labels": names}
        tiff = written(path, IMAGE, imagej=True, resolution=(per, per), metadata=metadata)
        expected = (pytest.approx((0.325, 0.325)), "ImageJ") if um else (None, None)
        assert (tiff.channels, tiff.pixel_size, tiff.size_source) == (names, *expected)
    page = '<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription><Name>a</Name>{}'
    page += "</PerkinElmer-QPI-ImageDescription>"
    for coding in ("utf-8", "utf-16"):
        with tifffile.TiffWriter(path, ome=False) as writer:
            for name, plane in zip(names, IMAGE, strict=True):
                text = page.format(f"<Biomarker>{name}</Biomarker>" if name != "a" else "").encode(coding)
                kwargs = {"metadata": None, "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
                writer.write(plane, description=text, software="PerkinElmer-QPI", **kwargs)
        tiff = open_tiff(path)
        assert (tiff.channels, tiff.pixel_size, tiff.size_source) == (names, pytest.approx((0.5, 0.5)), "QPTIFF")


@pytest.mark.parametrize(
    ("unit", "per", "um"),
    [
        *(("CENTIMETER", 2e4, 0.5), ("INCH", 50800, 0.5), ("MILLIMETER", 2e3, 0.5), ("NONE", 2, None)),
        *(("INCH", 72, None), ("INCH", 96, None), ("INCH", 300, None), ("CENTIMETER", 28.35, None), ("INCH", 0, None)),
    ],
)
def test_resolution_is_a_pixel_size_unless_it_is_for_a_printer(tmp_path, unit, per, um):
    tiff = written(tmp_path / "x.tif", IMAGE, resolution=(per, per), resolutionunit=unit)
    expected = (None, None) if um is None else (pytest.approx((um, um)), "resolution tag")
    assert (tiff.pixel_size, tiff.size_source) == expected


def test_a_set_of_ome_files_is_one_image_and_an_error_if_one_is_missing(ome_set):
    for name in ("p0.ome.tif", "p2.ome.tif"):
        tiff = open_tiff(ome_set / name)
        np.testing.assert_array_equal(tiff.pixels, IMAGE[:3])
        assert (tiff.channels, len(tiff.files)) == (["a", "b", "c"], 3)
    (ome_set / "p1.ome.tif").unlink()
    with pytest.raises(ValueError, match=r"1 planes that are not there; the files p1\.ome\.tif are not beside it"):
        open_tiff(ome_set / "p0.ome.tif")


def test_chunks_are_whole_tiles_or_strips(tmp_path):
    big = np.zeros((2, 2100, 2300), np.uint8)
    tiled = written(tmp_path / "tiled.tif", big, tile=(512, 768), compression="zlib").pixels
    assert tiled.chunks == ((1, 1), (2048, 52), (1536, 764))
    strips = written(tmp_path / "strips.tif", big, rowsperstrip=100, compression="zlib").pixels
    assert strips.chunks == ((1, 1), (1800, 300), (2300,))


def test_files_are_read_late_and_may_be_sent_to_workers(tmp_path):
    path = tmp_path / "x.tif"
    tiff = written(path, IMAGE, tile=(64, 64), compression="zlib")
    pixels = pickle.loads(pickle.dumps(tiff.pixels))
    np.testing.assert_array_equal(pixels[[4, 1], :, 3].compute(scheduler="threads"), IMAGE[[4, 1], :, 3])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        tiff.pixels.compute()


def test_names_and_lists_of_files(tmp_path):
    names = ("a.tif", "a.b.TIFF", "CD3.ome.tif", "x.OME.tiff", "s.qptiff", "m.png", "txt.txt")
    assert [stem(Path(name)) for name in names] == ["a", "a.b", "CD3", "x", "s", "m", "txt.txt"]
    for name in ("b.tif", "a.ome.tiff", "._b.tif", "notes.txt", "C.TIF", "s.qptiff", "m.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.tif").mkdir()
    assert [path.name for path in list_tiffs(tmp_path)] == ["C.TIF", "a.ome.tiff", "b.tif", "s.qptiff"]


def test_damaged_pixels_name_the_file(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, IMAGE, compression="zlib", tile=(32, 48))
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(16))
    with pytest.raises(ValueError, match=r"x\.tif is damaged"):
        open_tiff(path).pixels.compute()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"not an image", "cannot be read as a TIFF file"),
        (lambda data: data[:7], "cannot be read as a TIFF file"),
        (lambda data: data[:8], "it holds no image; is it complete"),
        (lambda data: data[:4] + (10**8).to_bytes(4, "little") + data[8:], "it holds no image; is it complete"),
        (lambda data: data[:4] + (5000).to_bytes(4, "little") + data[8:], "cannot be read as a TIFF file"),
        (lambda data: data[: len(data) // 2], r"it ends after 1 image\(s\), but says that more follow"),
        (lambda data: data.replace(b"</OME>", b"<<OME>"), "its OME-XML is damaged"),
        (lambda data: data.replace(b'SizeX="170"', b'SizeX="17x"'), "cannot be read as a TIFF file.*17x"),
    ],
    ids=["text", "cut header", "header only", "offset beyond", "offset into pixels", "cut pages", "XML", "size"],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_one_error_that_names_them(tmp_path, damage, words):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, IMAGE, byteorder="<", metadata=OME)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"x\.ome\.tif cannot be read.*{words}|x\.ome\.tif {words}"):
        open_tiff(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_lacks_its_last_bytes_is_an_error_however_few(tmp_path, compression):
    """OME-XML is what is written last; tifffile leaves out a tag whose value is not there."""
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, IMAGE, metadata=OME | {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, compression=compression)
    whole = path.read_bytes()
    for lacking in (1, 2, 10, 400, 1100, 1165, 1300):
        path.write_bytes(whole[:-lacking])
        with pytest.raises(ValueError, match=r"cannot be read as a TIFF file: .*is it complete\?"):
            open_tiff(path)


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 10}, {"tile": (64, 64), "compression": "zlib"}])
@pytest.mark.parametrize(
    ("side", "words"), [(2**31, "2147483648 x 2147483648 pixels, but has"), (1000, "tiles or strips a page, but has")]
)
@pytest.mark.filterwarnings("ignore")
def test_more_pixels_than_the_file_can_hold_are_an_error_at_once(tmp_path, options, side, words):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, IMAGE[0], **options)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(side, dtype="I")
    with pytest.raises(ValueError, match=rf"x\.tif cannot be read .*{words} \d+.*; is it damaged"):
        open_tiff(path)


@pytest.mark.parametrize("other", [IMAGE[:, ::-1], IMAGE[:3, :50]])
@pytest.mark.parametrize("options", [{}, {"tile": (64, 64), "compression": "zlib"}])
def test_a_file_rewritten_after_opening_is_an_error(tmp_path, other, options):
    path = tmp_path / "x.tif"
    pixels = written(path, IMAGE, **options).pixels
    time.sleep(0.02)
    tifffile.imwrite(path, other, **options)
    with pytest.raises(ValueError, match=r"x\.tif has been rewritten since it was opened; open it anew"):
        pixels.compute()
    np.testing.assert_array_equal(open_tiff(path).pixels, other)
