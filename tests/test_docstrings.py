"""Every example in a docstring runs and gives what it shows."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import nimbus_sd

MODULES = sorted(module.name for module in walk_packages(nimbus_sd.__path__, "nimbus_sd."))
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name, capsys):
    failed, _ = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert not failed, capsys.readouterr().out


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for name in MODULES for test in finder.find(import_module(name)) if test.examples]
    documented = {test.name for test in tests}
    for name in (
        "nimbus_sd._predict.predict",
        "nimbus_sd.io.fovs.read_fovs",
        "nimbus_sd.datasets.example.example",
        "nimbus_sd.metrics.markers.marker_metrics",
        "nimbus_sd.simulate.sdata.simulate",
    ):
        assert name in documented
