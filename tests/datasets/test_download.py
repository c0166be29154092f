"""Files of the hub's stand-in: once, whole, checked, and named clearly where something is wrong."""

import os
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import are_progress_bars_disabled
from standin_hub import FIRST, SECOND, Handler

from nimbus_sd.datasets._download import fetch

REPOSITORY = "somebody/some-data"
CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def standin(serve_hub):
    return serve_hub("datasets", REPOSITORY, {"README.md": b"#", "data.zip": CONTENT})


def get(update=False):
    return fetch(REPOSITORY, lambda names: [name for name in names if name.endswith(".zip")], "Do this instead.",
                 update=update, progress=False)  # fmt: skip


def test_downloaded_once_and_without_a_connection_afterwards(standin):
    first = get()
    assert first.commit == FIRST and first.files["data.zip"].read_bytes() == CONTENT
    assert not any("README" in request for request in standin.server.requests)
    asked = len(standin.server.requests)
    assert get() == first and len(standin.server.requests) == asked
    standin.stop()
    assert get() == first


def test_newer_commit_only_on_request(standin):
    first = get()
    standin.publish("data.zip", b"new")
    assert get() == first
    newer = get(update=True)
    assert (newer.commit, newer.files["data.zip"].read_bytes()) == (SECOND, b"new")
    assert get() == newer
    standin.stop()
    with pytest.raises(ConnectionError):
        get(update=True)
    assert get() == newer


def test_a_download_that_broke_off_is_taken_up_again(standin, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    standin.server.cuts = [1_000_000]
    assert get().files["data.zip"].read_bytes() == CONTENT
    assert standin.server.ranges == [1_000_000]


def test_a_download_that_failed_leaves_nothing_half(standin, monkeypatch):
    """The hub goes away in the middle, and comes back later."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    standin.server.cuts = [1_200_000] + [0] * 30
    with pytest.raises(ConnectionError, match=r"could not be fetched from .* Do this instead\."):
        get()
    standin.server.cuts = []
    assert get().files["data.zip"].read_bytes() == CONTENT


def test_damaged_on_the_way(standin):
    standin.server.changed["data.zip"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(ValueError, match=r"data\.zip is damaged.* its sha256 is .*, and must be"):
        get()
    standin.server.changed.clear()
    assert get().files["data.zip"].read_bytes() == CONTENT


def test_checked_again_after_the_cache_was_emptied(standin, tmp_path):
    get()
    (tmp_path / "hub").rename(tmp_path / "gone")
    standin.server.changed["data.zip"] = bytes(len(CONTENT))
    with pytest.raises(ValueError, match="is damaged"):
        get()


def test_no_repository_and_no_hub(standin, monkeypatch):
    standin.server.repository = "somebody/else"
    with pytest.raises(ConnectionError, match=r"The data set somebody/some-data could not .*404.* Do this instead"):
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
    assert get().files["data.zip"].read_bytes() == CONTENT
    assert "may not be the latest" in caplog.text
    assert get().commit == FIRST


@pytest.mark.parametrize("text", ["", "[]", '{"commit": "1"}', '{"commit": "1", "files": 3}'])
def test_unreadable_record_is_looked_up_again(standin, tmp_path, caplog, text):
    first = get()
    (record,) = (tmp_path / "assets").rglob("version.json")
    record.write_text(text)
    assert get() == first
    assert "looked up again" in caplog.text


def test_progress_bars_are_as_before(standin):
    get()
    assert not are_progress_bars_disabled()


def test_environment_variables(standin, tmp_path):
    """In a process of its own, as huggingface_hub reads some of them when it is imported."""
    code = (
        "from nimbus_sd.datasets._download import fetch;"
        f"print(fetch({REPOSITORY!r}, lambda names: ['data.zip'], '', update=False, progress=False))"
    )
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    ours |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": standin.url}

    def run(**more):
        done = subprocess.run(
            [sys.executable, "-c", code], env=ours | more, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = run()
    assert FIRST in found and str(tmp_path / "home") in found
    standin.stop()
    assert run(HF_HUB_OFFLINE="1") == found
