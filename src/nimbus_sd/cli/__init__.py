"""The command line: a thin layer over the public functions."""

from nimbus_sd.cli._app import app
from nimbus_sd.cli._benchmark import benchmark
from nimbus_sd.cli._convert import convert
from nimbus_sd.cli._demo import demo
from nimbus_sd.cli._predict import predict
from nimbus_sd.cli._report import report

__all__ = ["app"]

for command in (demo, predict, convert, report, benchmark):
    app.command()(command)
