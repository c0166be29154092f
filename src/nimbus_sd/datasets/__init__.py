"""Data to try things on."""

from nimbus_sd.datasets._example import example

__all__ = ["example"]
