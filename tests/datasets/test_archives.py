"""Archives: downloaded once, whole and checked; unpacked all or nothing; and nothing hostile."""

import io
import os
import shutil
import stat
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import are_progress_bars_disabled
from standin_hub import FIRST, SECOND, Handler
from standin_pan_m import zipped

from nimbus_sd.datasets import archives
from nimbus_sd.datasets.archives import fetch, unpack

REPOSITORY = "somebody/some-data"
CONTENT = np.random.default_rng(0).bytes(3_000_000)
ZIP = zipped({"data.bin": CONTENT})


@pytest.fixture
def standin(serve_hub):
    return serve_hub("datasets", REPOSITORY, {"README.md": b"#", "data.zip": ZIP})


def get(update=False):
    source = fetch(REPOSITORY, None, update=update, progress=False)
    return source.attrs["commit"], (source.root / "data/data.bin").read_bytes()


def test_downloaded_once_and_newer_only_on_request(standin):
    first = get()
    assert first == (FIRST, CONTENT) and not are_progress_bars_disabled()
    assert not any("README" in request for request in standin.server.requests)
    asked = len(standin.server.requests)
    standin.publish("data.zip", zipped({"data.bin": b"new"}))
    assert get() == first and len(standin.server.requests) == asked
    newer = get(update=True)
    assert newer == get() == (SECOND, b"new")
    standin.stop()
    with pytest.raises(ConnectionError):
        get(update=True)
    assert get() == newer


def test_a_download_that_broke_off_is_taken_up_again_or_leaves_nothing_half(standin, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    standin.server.cuts = [1_200_000] + [0] * 30
    with pytest.raises(ConnectionError, match=r"could not be fetched from .* download the zip archive"):
        get()
    standin.server.cuts, standin.server.ranges = [500_000], []
    assert get() == (FIRST, CONTENT) and standin.server.ranges == [500_000]


def test_damaged_on_the_way(standin):
    standin.server.changed["data.zip"] = ZIP[:-1] + bytes([ZIP[-1] ^ 1])
    with pytest.raises(ValueError, match=r"data\.zip is damaged.* its sha256 is .*, and must be"):
        get()
    standin.server.changed.clear()
    assert get() == (FIRST, CONTENT)


def test_no_repository_and_no_hub(standin, monkeypatch):
    standin.server.repository = "somebody/else"
    with pytest.raises(ConnectionError, match=r"The data set somebody/some-data could not .*404.* download the zip"):
        get()
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.answer(b"<html>Please log in</html>"))
    with pytest.raises(ConnectionError, match="could not be fetched"):
        get()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="could not be fetched"):
        get()


def test_downloaded_by_another_program(standin, caplog):
    hf_hub_download(REPOSITORY, "data.zip", repo_type="dataset", endpoint=standin.url)
    standin.stop()
    assert get() == (FIRST, CONTENT)
    assert "may not be the latest" in caplog.text


def test_unreadable_record_is_looked_up_again(standin, tmp_path, caplog):
    first = get()
    (record,) = (tmp_path / "assets").rglob("version.json")
    for text in ("", "[]", '{"commit": "1"}', '{"commit": "1", "files": 3}'):
        caplog.clear()
        record.write_text(text)
        assert get() == first and "looked up again" in caplog.text


@pytest.fixture
def into(tmp_path):
    """Unpack the content of a file into ``tmp_path/place/to``, and return what is there."""

    def run(content, parts=1):
        cut = np.linspace(0, len(content), parts + 1).astype(int)
        files = [tmp_path / f"data.zip.{i}" for i in range(parts)]
        for i, file in enumerate(files):
            file.write_bytes(content[cut[i] : cut[i + 1]])
        folder = tmp_path / "place" / "to"
        unpack(files, folder, progress=False)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return run


def entry(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.txt", b"good")
        archive.writestr(info, b"/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_content_of_whole_and_cut_archives_is_unpacked_once(into, parts, tmp_path):
    files = {f"a/{i}.bin": np.random.default_rng(i).bytes(10_000 * i) for i in range(5)} | {"b c.txt": b"d"}
    files |= {"x" * 255: b"1", "é" * 127: b"2", "/".join(["y" * 99] * 10): b"3", "c/b": b"4", "cb": b"5"}
    others = {"a/.DS_Store": b"", "__MACOSX/a/._x.tif": b"", "a/._x.tif": b"", "a\\x.tif": b"x"}
    assert into(zipped(files | others), parts) == into(b"something else") == files | {"a/x.tif": b"x"}
    assert os.listdir(tmp_path / "place") == ["to"]


@pytest.mark.parametrize(
    "name, mode, said",
    [
        *((name, 0, "leads out of the folder") for name in ("a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil")),
        ("\\\\server\\share\\evil", 0, "leads out of the folder"),
        ("link", stat.S_IFLNK | 0o777, "a link or device"),
        ("pipe", stat.S_IFIFO | 0o777, "a link or device"),
        ("good.txt", 0, "twice"),
        ("good.txt\\b\\c", 0, "'good.txt' as a file and as a folder"),
        *((name, 0, "a name too long") for name in ("x" * 300, "a/" + "é" * 128 + "/b", "ab/" * 400 + "c")),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_names_and_links_leave_nothing(into, tmp_path, name, mode, said):
    with pytest.raises(ValueError, match=said):
        into(entry(name, mode))
    assert sorted(os.listdir(tmp_path)) == ["data.zip.0", "place"] and not os.listdir(tmp_path / "place")


def patched(content, **fields):
    """Change a field of the entry in front of its content, and in the directory at the end."""
    changed = bytearray(content)
    directory = changed.rindex(b"PK\x01\x02")
    for name, value in fields.items():
        offset, width = {"flags": (6, 2), "compression": (8, 2), "size": (22, 4)}[name]
        for place in (offset, directory + offset + 2):
            changed[place : place + width] = value.to_bytes(width, "little")
    return bytes(changed)


SMALL = zipped({"a": np.random.default_rng(0).bytes(1000)})


@pytest.mark.parametrize(
    "content, said",
    [
        (SMALL[: len(SMALL) // 2], "is damaged, or no zip archive"),
        (b"no zip", "is damaged, or no zip archive"),
        (SMALL[:60] + b"\0" * 20 + SMALL[80:], "is damaged, or no zip archive"),
        (patched(zipped({"zeros": bytes(100_000)}), size=10), "is damaged"),
        (patched(SMALL, flags=1), "is encrypted.* Unpack it by hand, and pass the folder"),
        (patched(SMALL, compression=9), "Unpack it by hand, and pass the folder"),
    ],
    ids=["cut", "no zip", "zeros", "larger than it says", "encrypted", "unknown compression"],
)
def test_damaged_archives_leave_nothing(into, tmp_path, content, said):
    with pytest.raises(ValueError, match=said):
        into(content)
    assert not os.listdir(tmp_path / "place")


def test_bombs_and_full_disks(into, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"needs 1,000 bytes in .*, of which 10 are free"):
        into(SMALL)
    monkeypatch.setattr(archives, "FREE_SIZE", 1_000_000)
    with pytest.raises(ValueError, match=r"claims to hold 3,000,000 bytes, too much to be real"):
        into(zipped({"zeros": bytes(3_000_000)}))
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    with pytest.raises(ValueError, match="holds 3 files, more than 2"):
        into(zipped(dict.fromkeys("abc", b"")))
    assert not os.listdir(tmp_path / "place")


def test_another_process_may_be_first(into, tmp_path, monkeypatch):
    copy = shutil.copyfileobj

    def meanwhile(*args):
        copy(*args)
        (tmp_path / "place" / "to").mkdir(parents=True)
        (tmp_path / "place" / "to" / "theirs").touch()

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    assert list(into(zipped({"a": b"1"}))) == ["theirs"] and os.listdir(tmp_path / "place") == ["to"]
