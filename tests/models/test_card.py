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


WRONG = {"name": "", "root_filters": 16.0, "depth": True, "padding": ["reflect"], "rule": "median", "tta": 1}
WRONG |= {"license": None, "sha256": "abc", "training": [1], "revision": 1}
RANGES = [[0, 1], *({"low": low, "high": 1, "false_alarm": 0.01} for low in (2, "0")), {"low": 0, "high": 1}]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *((key, [value]) for key, value in WRONG.items()),
        ("pixel_size", [0, float("nan"), 10**400]),
        ("quantile", [0.0, None]),
        ("figures", [{"f1": "good"}, [0.8]]),
        ("ranges", [{"median": given} for given in RANGES]),
    ],
)
def test_values_that_are_not_allowed(tmp_path, key, values):
    path = tmp_path / "card.json"
    for value in values:
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
