"""Whether tests that need squidpy can run."""

from importlib.metadata import PackageNotFoundError, version


def squidpy_fits() -> bool:
    """Whether squidpy is here and new enough to import with anndata 0.12."""
    try:
        found = version("squidpy")
    except PackageNotFoundError:
        return False
    return tuple(map(int, found.split(".")[:2])) >= (1, 8)
