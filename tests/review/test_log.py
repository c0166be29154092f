import json
import subprocess
import sys

import pytest

from nimbus_sd._review.log import Log


def _log(path, **settings):
    return Log(path, **settings)


def _do(i):
    return {"do": "threshold", "marker": "CD3", "value": i / 100}


@pytest.fixture
def path(tmp_path):
    """A log of three steps, of which the second was taken back."""
    log = Log(tmp_path / "s.zarr.review.jsonl")
    for i in (1, 2):
        log.add("anna", _do(i))
    log.undo()
    log.add("anna", _do(3))
    log.close()
    return log.path


def test_steps_come_back(path):
    log = Log(path)
    assert [step["n"] for step in log.steps] == [1, 3] and log.annotator == "anna" and log.last == 3
    log.saved()
    log.add("ben", _do(4))
    log.close()
    again = Log(path)
    assert [step["n"] for step in again.steps] == [4] and again.name == log.name and again.annotator == "ben"
    again.close()


def test_half_a_line_at_the_end_is_dropped(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 4, "time": "20')
    log = Log(path)
    assert [step["n"] for step in log.steps] == [1, 3] and "half written" in log.notices[0]
    log.add("anna", _do(4))
    log.close()
    assert [step["n"] for step in Log(path, reading=True).steps] == [1, 3, 4]


def test_a_damaged_line_is_told_and_the_file_kept(path):
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:2], b"\0\0\0\n", *lines[2:]])
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"Line 3 of .* is damaged.*mend or delete that line"):
        Log(path)
    assert path.read_bytes() == damaged


def test_a_second_one_is_told_who_holds_it(path):
    code = "from pathlib import Path; from nimbus_sd._review.log import Log"
    code = f"{code}; Log(Path({str(path)!r})); print(1, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline().strip() == b"1"
    with pytest.raises(BlockingIOError, match=f"in use by a review of this store: process {other.pid} on "):
        Log(path)
    other.kill()
    other.wait()
    Log(path).close()


def test_reading_changes_nothing(path, tmp_path):
    before = path.read_bytes()
    log = Log(path, reading=True)
    log.add("anna", _do(9))
    assert path.read_bytes() == before
    assert not Log(tmp_path / "none.jsonl", reading=True).steps and not (tmp_path / "none.jsonl").exists()


def test_lines_are_json(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["open", "n", "n", "undo", "n"]
