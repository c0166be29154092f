"""Archives from elsewhere: what is in them, all or nothing, and nothing hostile."""

import io
import os
import shutil
import stat
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin_pan_m import zipped

from nimbus_sd.datasets import _unpack
from nimbus_sd.datasets._unpack import unpack


@pytest.fixture
def into(tmp_path):
    """A function that unpacks the content of a file into ``tmp_path/place/to``."""

    def run(content, parts=1):
        cut = np.linspace(0, len(content), parts + 1).astype(int)
        files = [tmp_path / f"data.zip.{i}" for i in range(parts)]
        for i, file in enumerate(files):
            file.write_bytes(content[cut[i] : cut[i + 1]])
        return unpack(files, tmp_path / "place" / "to", progress=False)

    return run


def found(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entry(name, mode=0, content=b"x", **changes):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.txt", b"good")
        archive.writestr(info, content)
    return file.getvalue()


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_content_of_whole_and_cut_archives(into, parts):
    files = {f"a/{i}.bin": np.random.default_rng(i).bytes(10_000 * i) for i in range(5)} | {"b c.txt": b"d"}
    assert found(into(zipped(files), parts)) == files


def test_what_macos_adds_and_windows_writes(into):
    files = {"a/.DS_Store": b"", "__MACOSX/a/._x.tif": b"", "a/._x.tif": b"", "a\\x.tif": b"x"}
    assert found(into(zipped(files))) == {"a/x.tif": b"x"}


def test_unpacked_once(into, tmp_path):
    folder = into(zipped({"a": b"1"}))
    (folder / "mark").touch()
    assert into(b"something else") == folder and (folder / "mark").exists()
    assert os.listdir(folder.parent) == ["to"]


@pytest.mark.parametrize(
    "name, mode, said",
    [
        ("../evil", 0, "leads out of the folder"),
        ("a/../../evil", 0, "leads out of the folder"),
        ("/tmp/evil", 0, "leads out of the folder"),
        ("..\\evil", 0, "leads out of the folder"),
        ("C:\\evil", 0, "leads out of the folder"),
        ("\\\\server\\share\\evil", 0, "leads out of the folder"),
        ("link", stat.S_IFLNK | 0o777, "a link or device"),
        ("pipe", stat.S_IFIFO | 0o777, "a link or device"),
        ("good.txt", 0, "twice"),
        ("good.txt/b", 0, "'good.txt' as a file and as a folder"),
        ("good.txt\\b\\c", 0, "'good.txt' as a file and as a folder"),
        ("x" * 300, 0, "a name too long"),
        ("a/" + "é" * 128 + "/b", 0, "a name too long"),
        ("ab/" * 400 + "c", 0, "a name too long"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_names_and_links_leave_nothing(into, tmp_path, name, mode, said):
    with pytest.raises(ValueError, match=said):
        into(entry(name, mode, b"/etc/passwd"))
    assert sorted(os.listdir(tmp_path)) == ["data.zip.0", "place"] and not os.listdir(tmp_path / "place")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from(["..", ".", "a", "b", "", "C:", "..a"]), min_size=1, max_size=5), st.sampled_from("/\\")
)
def test_no_name_leads_out(tmp_path_factory, names, separator):
    base = tmp_path_factory.mktemp("x")
    (base / "data.zip").write_bytes(entry(separator.join(names)))
    try:
        unpack([base / "data.zip"], base / "place" / "to", progress=False)
    except ValueError:
        assert not os.listdir(base / "place")
    assert sorted(os.listdir(base)) == ["data.zip", "place"]
    assert set(os.listdir(base / "place")) <= {"to"}


def test_bombs(into, monkeypatch, tmp_path):
    bomb = zipped({"zeros": bytes(3_000_000)})
    monkeypatch.setattr(_unpack, "FREE_SIZE", 1_000_000)
    with pytest.raises(ValueError, match=r"claims to hold 3,000,000 bytes, too much to be real"):
        into(bomb)
    monkeypatch.setattr(_unpack, "MAX_ENTRIES", 2)
    with pytest.raises(ValueError, match="holds 3 files, more than 2"):
        into(zipped(dict.fromkeys("abc", b"")))
    assert not os.listdir(tmp_path / "place")


def test_an_entry_larger_than_it_says_is_damaged(into, tmp_path):
    content = bytearray(zipped({"zeros": bytes(100_000)}))
    # The size stated in the directory at the end, and in front of the content.
    directory = content.rindex(b"PK\x01\x02")
    for place in (22, directory + 24):
        content[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(ValueError, match="is damaged"):
        into(bytes(content))
    assert not os.listdir(tmp_path / "place")


@pytest.mark.parametrize(
    "change", [lambda x: x[: len(x) // 2], lambda x: b"no zip", lambda x: x[:60] + b"\0" * 20 + x[80:]]
)
def test_damaged_archives_leave_nothing(into, tmp_path, change):
    content = zipped({"a": np.random.default_rng(0).bytes(1000)})
    with pytest.raises(ValueError, match=r"is damaged, or no zip archive"):
        into(change(content))
    assert not os.listdir(tmp_path / "place")


def test_full_disk_encrypted_and_unknown_compression(into, tmp_path, monkeypatch):
    content = bytearray(zipped({"a": b"1" * 1000}))
    directory = content.rindex(b"PK\x01\x02")
    locked, strange = content.copy(), content.copy()
    for place in (6, directory + 8):
        locked[place] |= 1
    for place in (8, directory + 10):
        strange[place : place + 2] = (9).to_bytes(2, "little")
    with pytest.raises(ValueError, match="is encrypted"):
        into(bytes(locked))
    with pytest.raises(ValueError, match="Unpack it by hand, and pass the folder"):
        into(bytes(strange))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"needs 1,000 bytes in .*, of which 10 are free"):
        into(bytes(content))
    assert not os.listdir(tmp_path / "place")


def test_the_longest_names_and_folders_of_their_own(into):
    files = {"x" * 255: b"1", "é" * 127: b"2", "/".join(["y" * 99] * 10): b"3", "a/b": b"4", "ab": b"5"}
    assert found(into(zipped(files))) == files


def test_another_process_may_be_first(into, tmp_path, monkeypatch):
    copy = shutil.copyfileobj

    def meanwhile(*args):
        copy(*args)
        (tmp_path / "place" / "to" / "theirs").mkdir(parents=True)

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    assert os.listdir(into(zipped({"a": b"1"}))) == ["theirs"]
    assert os.listdir(tmp_path / "place") == ["to"]
