"""Sphinx builds the site from this folder: ``make docs``."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as version_of
from urllib.error import URLError
from urllib.request import urlopen

project = "nimbus-sd"
author = copyright = "nimbus-sd developers"
release = version = version_of("nimbus-sd")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "tutorials/*.zarr", "tutorials/*.new.ipynb"]
templates_path = ["_templates"]
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `make tutorials` runs the notebooks; here their outputs are only shown.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
typehints_defaults = "braces"
typehints_use_rtype = False
always_use_bars_union = True

# Sphinx to sphinx-autodoc-typehints, once for each signature.
warnings.filterwarnings("ignore", message=r".*_RstSnippetParser\.set_application")

html_theme = "sphinx_book_theme"
html_title = "nimbus-sd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "use_fullscreen_button": False}

_NEIGHBOURS = {
    "anndata": "https://anndata.readthedocs.io/en/stable/",
    "dask": "https://docs.dask.org/en/stable/",
    "distributed": "https://distributed.dask.org/en/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scanpy": "https://scanpy.readthedocs.io/en/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "skimage": "https://scikit-image.org/docs/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "spatialdata": "https://spatialdata.scverse.org/en/stable/",
    "squidpy": "https://squidpy.readthedocs.io/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "xarray": "https://docs.xarray.dev/en/stable/",
}


def _answers(url: str) -> bool:
    try:
        with urlopen(url + "objects.inv", timeout=5):  # noqa: S310
            return True
    except (URLError, OSError):
        return False


# A site that cannot be reached leaves its names as plain text, so that the build needs no network.
with ThreadPoolExecutor() as pool:
    _there = dict(zip(_NEIGHBOURS, pool.map(_answers, _NEIGHBOURS.values()), strict=True))
intersphinx_mapping = {name: (url, None) for name, url in _NEIGHBOURS.items() if _there[name]}

# A reference that leads nowhere fails the build. Names of others may stay plain text, with and without network, so that
# both builds give the same warnings: none.
nitpicky = True
_OTHERS = (*_NEIGHBOURS, "collections", "lightning", "pathlib", "typing", "zarr")
nitpick_ignore = [("py:data", "Ellipsis")]
nitpick_ignore_regex = [(r"py:.*", rf"({'|'.join(_OTHERS)})\..*")]
