"""Reading, writing and refusing cards."""

import json
from dataclasses import asdict, replace

import pytest

from nimbus_sd.models import PUBLISHED, Card


def test_published_card_and_round_trip_through_a_file(tmp_path):
    assert (PUBLISHED.name, PUBLISHED.root_filters, PUBLISHED.stride, PUBLISHED.halo) == ("nimbus", 64, 16, 96)
    assert (PUBLISHED.pixel_size, PUBLISHED.rule, PUBLISHED.quantile) == (1.0, "mean_of_regions", 0.999)
    path, ranges = tmp_path / "card.json", {"median": {"low": 0.0, "high": 0.5, "false_alarm": 0.01}}
    card = replace(PUBLISHED, name="µ", figures={"f1": 0.8}, sha256="0" * 64, revision="V2.pt@abc", ranges=ranges)
    card.write(path)
    assert Card.read(path) == card
    optional = ("figures", "sha256", "revision", "ranges")
    path.write_text(json.dumps({key: value for key, value in asdict(PUBLISHED).items() if key not in optional}))
    assert Card.read(path) == replace(PUBLISHED, figures={})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("root_filters", 16.0),
        ("depth", True),
        ("padding", ["reflect"]),
        ("pixel_size", 0),
        ("pixel_size", float("nan")),
        ("pixel_size", 10**400),
        ("rule", "median"),
        ("quantile", 0.0),
        ("quantile", None),
        ("tta", 1),
        ("license", None),
        ("figures", {"f1": "good"}),
        ("figures", [0.8]),
        ("sha256", "abc"),
        ("ranges", {"median": [0, 1]}),
        ("ranges", {"median": {"low": 0, "high": 1}}),
        ("ranges", {"median": {"low": 1, "high": 0, "false_alarm": 0.01}}),
        ("ranges", {"median": {"low": "0", "high": 1, "false_alarm": 0.01}}),
        ("training", [1]),
        ("revision", 1),
    ],
)
def test_values_that_are_not_allowed(tmp_path, key, value):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(asdict(PUBLISHED) | {key: value}))
    with pytest.raises(ValueError, match=rf"card\.json.*{key} is .*must be"):
        Card.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 10**5, "not valid JSON"),
        ("[]", "no JSON object"),
        ('{"name": "x"}', "missing .* arguments: 'root_filters', 'depth', "),
        (json.dumps(asdict(PUBLISHED) | {"colour": 1}), "unexpected keyword argument 'colour'"),
    ],
)
def test_other_texts(tmp_path, text, message):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"card\.json.*{message}"):
        Card.read(path)
