"""The published weights, and models that users share, from a stand-in for the Hugging Face hub."""

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, constants, hf_hub_download
from standin_hub import FIRST, SECOND, Handler

from nimbus_sd.models import PUBLISHED, UNet, hub, load, push, save

REPOSITORY = hub.REPOSITORY


def checkpoint(root_filters):
    file = io.BytesIO()
    torch.save(UNet(root_filters, 2).state_dict(), file)
    return file.getvalue()


@pytest.fixture
def standin(serve_hub):
    """A running hub, an empty cache, and the environment pointing at both."""
    files = {"README.md": b"#", "V2.pt": checkpoint(2), "V10.pt": checkpoint(3), "V11.pt.bak": b"", "xV99.pt": b""}
    return serve_hub("models", REPOSITORY, files)


def test_highest_number_is_taken_and_written_down(standin):
    model = load("nimbus")
    assert (model.card.name, model.card.root_filters, model.card.depth) == ("nimbus", 3, 2)
    assert model.card.revision == f"V10.pt@{FIRST}"
    assert model.card.sha256 == hashlib.sha256(standin.server.commits[FIRST]["V10.pt"]).hexdigest()
    assert model.card.source == REPOSITORY

    # From now on no connection is needed but for an update.
    standin.stop()
    assert load("nimbus").card == model.card
    with pytest.raises(ConnectionError, match="could not be fetched"):
        load("nimbus", update=True)
    assert load("nimbus").card == model.card


def test_newer_version_only_on_request(standin):
    first = load("nimbus")
    standin.publish("V11.pt", checkpoint(4))
    assert load("nimbus").card == first.card

    newer = load("nimbus", update=True)
    assert (newer.card.root_filters, newer.card.revision) == (4, f"V11.pt@{SECOND}")
    assert load("nimbus").card == newer.card


def test_recorded_version_is_downloaded_again_after_the_cache_was_emptied(standin, tmp_path):
    path, version = hub.fetch()
    standin.publish("V11.pt", checkpoint(4))
    (tmp_path / "hub").rename(tmp_path / "gone")
    again, same = hub.fetch()
    assert same == version and again == path and path.is_file()


def test_unreadable_record_is_looked_up_again(standin, tmp_path, caplog):
    _, version = hub.fetch()
    (record,) = (tmp_path / "assets").rglob("*.json")
    for text in ("", "[]", "7", '{"file": "V1.pt"}', '{"file": "../V1.pt", "commit": 3}', "[" * 10**5):
        record.write_text(text)
        assert hub.fetch()[1] == version
    assert "looked up again" in caplog.text


@pytest.mark.parametrize("stated", [True, False])
def test_a_cached_file_that_changed_is_refused_and_downloaded_again(standin, monkeypatch, stated):
    if not stated:
        # A mirror that says nothing of sha256: the file counts as it came first.
        version = {"file": "V10.pt", "commit": FIRST, "sha256": None}
        monkeypatch.setattr(hub, "_look_up", lambda *_, **__: version)
    first = load("nimbus")
    path = hub.fetch()[0]
    path.resolve().write_bytes(checkpoint(3))
    with pytest.raises(ValueError, match=rf"V10\.pt is damaged.* must be {first.card.sha256}.*call again"):
        load("nimbus")
    assert load("nimbus").card == first.card


def test_a_first_download_is_compared_with_what_the_hub_states_and_with_what_is_known(standin, monkeypatch):
    standin.server.changed["V10.pt"] = (changed := checkpoint(3))
    with pytest.raises(ValueError, match=r"V10\.pt is damaged"):
        load("nimbus")
    standin.server.changed.clear()
    monkeypatch.setattr(hub, "KNOWN", {"V10.pt": hashlib.sha256(changed).hexdigest()})
    with pytest.raises(ValueError, match=r"V10\.pt is damaged, or another file"):
        load("nimbus")


def test_a_record_of_an_earlier_release_gets_a_sha256(standin, tmp_path):
    first = load("nimbus")
    (record,) = (tmp_path / "assets").rglob("*.json")
    record.write_text(json.dumps({"file": "V10.pt", "commit": FIRST}))
    assert load("nimbus").card == first.card and first.card.sha256 in record.read_text()


@pytest.mark.parametrize("offline", [False, True])
def test_no_hub(standin, monkeypatch, offline):
    standin.stop()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ConnectionError) as caught:
        load("nimbus")
    text = str(caught.value)
    assert standin.url in text and "model='/path/V1.pt'" in text and "model='compact'" in text
    assert "\n" not in text


def test_hub_without_weights_or_repository(standin, monkeypatch):
    standin.server.commits = {FIRST: {"README.md": b"#"}}
    with pytest.raises(ConnectionError, match=r"lists no file V<number>\.pt"):
        load("nimbus")
    monkeypatch.setattr(hub, "REPOSITORY", "JLrumberger/Elsewhere")
    with pytest.raises(ConnectionError, match="404"):
        load("nimbus")


def test_web_page_in_place_of_the_hub(standin, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.answer(b"<html>Please log in</html>"))
    with pytest.raises(ConnectionError, match="could not be fetched"):
        load("nimbus")


def test_weights_downloaded_by_another_program(standin, caplog):
    hf_hub_download(REPOSITORY, "V2.pt", endpoint=standin.url)
    standin.stop()
    assert load("nimbus").card.revision == f"V2.pt@{FIRST}"
    assert "may not be the latest" in caplog.text


def test_environment_variables(standin, tmp_path):
    """In a process of its own, as huggingface_hub reads some of them when it is imported."""
    code = "from nimbus_sd.models import hub; print(*hub.fetch())"
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    ours |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": standin.url}

    def fetch(**more):
        done = subprocess.run(
            [sys.executable, "-c", code], env=ours | more, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = fetch()
    assert f"V10.pt@{FIRST}" in found and str(tmp_path / "home") in found
    standin.stop()
    assert fetch(HF_HUB_OFFLINE="1") == found


CARD = replace(PUBLISHED, name="mine", root_filters=2, depth=2, training={"seed": 3}, boundary="cell")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.safetensors"
    return path, save(UNet(2, 2), CARD, path)


@pytest.fixture
def hub_api(monkeypatch):
    """The hub's side of an upload: what it was asked for, and the files that it got."""
    got = {}
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: got.update(repository=name, **settings))

    def commit(self, name, operations, commit_message):
        got["files"] = {}
        for one in operations:
            with one.as_file() as file:
                got["files"][one.path_in_repo] = file.read()
        return SimpleNamespace(oid=FIRST)

    monkeypatch.setattr(HfApi, "create_commit", commit)
    return got


def test_what_is_pushed_is_what_is_loaded(mine, hub_api, serve_hub):
    path, card = mine
    name = push(path, "me/mine")
    assert name == f"hf:me/mine@{FIRST}"
    assert (hub_api["repository"], hub_api["private"], hub_api["exist_ok"]) == ("me/mine", True, True)
    standin = serve_hub("models", "me/mine", hub_api["files"])
    for given in (name, "hf:me/mine"):
        found = load(given)
        assert found.card == replace(card, revision=name) and found.card.training == {"seed": 3}
        for key, value in load(path).network.state_dict().items():
            assert torch.equal(found.network.state_dict()[key], value)
    standin.stop()
    assert load(name).card == load("hf:me/mine").card == replace(card, revision=name)


def test_without_a_revision_the_first_commit_is_kept_to(mine, hub_api, serve_hub, tmp_path):
    path, card = mine
    push(path, "me/mine")
    standin = serve_hub("models", "me/mine", hub_api["files"])
    assert load("hf:me/mine").card.revision == f"hf:me/mine@{FIRST}"
    save(UNet(2, 2), replace(CARD, name="other"), tmp_path / "other.safetensors")
    push(tmp_path / "other.safetensors", "me/mine")
    standin.server.commits[SECOND] = hub_api["files"]
    assert load("hf:me/mine").card == replace(card, revision=f"hf:me/mine@{FIRST}")
    assert load("hf:me/mine@main").card.name == "other"
    newer = load("hf:me/mine", update=True).card
    assert (newer.name, newer.revision) == ("other", f"hf:me/mine@{SECOND}")
    assert load("hf:me/mine").card == newer


@pytest.mark.parametrize("cached", [False, True])
def test_offline(mine, hub_api, serve_hub, monkeypatch, caplog, cached):
    path, card = mine
    name = push(path, "me/mine")
    standin = serve_hub("models", "me/mine", hub_api["files"])
    if cached:
        for file in ("model.safetensors", "model.json"):
            hf_hub_download("me/mine", file, endpoint=standin.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if cached:
        assert load("hf:me/mine").card == replace(card, revision=name)
        assert "may not be the latest" in caplog.text
    else:
        with pytest.raises(ConnectionError, match=r"'hf:me/mine' could not be .*HF_HUB_OFFLINE.*Give the path"):
            load("hf:me/mine")


def test_what_the_hub_does_not_hold_is_one_error(serve_hub):
    serve_hub("models", "me/mine", {"README.md": b"#"})
    with pytest.raises(ConnectionError, match=r"model 'hf:me/mine' could not be fetched"):
        load("hf:me/mine")


def test_an_upload_that_is_refused_is_one_error(mine, monkeypatch):
    def refused(self, *_, **__):
        raise RuntimeError("401: who are you?")

    monkeypatch.setattr(HfApi, "create_repo", refused)
    with pytest.raises(ConnectionError, match=r"'me/mine' could not be written to .*who are you.*hf auth login"):
        push(mine[0], "me/mine")


@pytest.mark.parametrize("name", ["mine", "me/mine/too", "https://x/y", ""])
def test_names_that_are_none_are_refused(mine, name):
    with pytest.raises(ValueError, match="no repository of the hub"):
        push(mine[0], name)
    with pytest.raises(ValueError, match="no repository of the hub"):
        load(f"hf:{name}")


def test_a_model_without_its_card_is_not_pushed(mine):
    path, _ = mine
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"mine\.json does not exist"):
        push(path, "me/mine")
