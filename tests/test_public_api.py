"""What users may rely on: names, documentation, and an import that costs nothing."""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.resources import files

import pytest

import nimbus_sd as ns

# A name that leaves here is missed by somebody: say so in the change log.
PUBLIC = {
    f"nimbus_sd{room}": set(names.split())
    for room, names in {
        "": "datasets io labels metrics models pl predict review simulate tl train",
        ".datasets": "example pan_m pan_m_gold_standard",
        ".io": "read_fovs save_table write_cells",
        ".labels": """agreement check_silver consensus draw_cells draw_regions evaluation_regions from_csv from_qupath
            silver silver_from_gates silver_noise to_csv to_qupath""",
        ".metrics": """calibration_curve calibration_error compare_baselines confounder_information confounders
            find_threshold image_statistics marker_metrics pr_curve roc_curve score_shape threshold_curve""",
        ".models": "Card Model Scorer UNet load push save",
        ".pl": """cells check_silver cluster_gallery compare_clusterings comparison composition curve disagreement
            image merging metacluster_suggestion metrics report score_matrix score_shape som_stars""",
        ".simulate": "Detector Marker Segmentation draw_tissue expose segment simulate stain truth",
        ".tl": """Metaclusters adapt calibrate call_positive cell_features cell_types check_signatures cluster_checks
            flowsom leiden map_to_som signatures suggest_types""",
        ".train": "Augmentation Recipe Selection Split Store build_store fine_tune left_out show_left_out train",
    }.items()
}
ROOMS = sorted(PUBLIC)
NAMES = [(room, name) for room in ROOMS for name in sorted(PUBLIC[room])]


@pytest.mark.parametrize("room", ROOMS)
def test_public_names(room):
    names = import_module(room).__all__
    assert set(names) == PUBLIC[room] and len(names) == len(set(names))


@pytest.mark.parametrize("room, name", NAMES)
def test_public_names_exist_and_are_documented(room, name):
    thing = getattr(import_module(room), name)
    if inspect.ismodule(thing) or inspect.isroutine(thing) or inspect.isclass(thing):
        text = inspect.getdoc(thing) if not inspect.isclass(thing) else thing.__doc__
        # A dataclass without one gets its signature.
        assert text and not text.startswith(f"{name}(")
    if inspect.isroutine(thing) and len(parameters := inspect.signature(thing).parameters) > 1:
        described = inspect.getdoc(thing).split("Parameters\n----------\n")[1]
        names = {name for line in described.splitlines() if line[:1].strip() for name in line.split(", ")}
        assert set(parameters) <= names and (name == "predict" or len(parameters) <= 14)


def test_arguments_of_predict():
    """Two keys may follow the data by position, the rest goes by name; defaults are part of the promise."""
    parameters = inspect.signature(ns.predict).parameters.values()
    assert str(
        inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters])
    ) == (
        "(sdata, image_key=None, labels_key=None, *, shapes_key=None, table_key='table', key_added='nimbus', "
        "model='compact', channels=None, pixel_size=None, grow=0.0, normalization=None, tta=None, "
        "precision='auto', tile_size=None, batch_size=None, save_maps=False, device='auto', checkpoint=None, "
        "client=None, progress=True)"
    )


def test_dir_version_and_types():
    assert set(dir(ns)) == PUBLIC["nimbus_sd"] | {"__version__"}
    assert ns.__version__[0].isdigit()
    assert (files("nimbus_sd") / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        _ = ns.predikt


@pytest.mark.parametrize("module", ["nimbus_sd", "nimbus_sd.cli"])
def test_importing_the_package_imports_nothing_heavy(module):
    heavy = "{'torch', 'scanpy', 'squidpy', 'spatialdata', 'anndata', 'dask', 'matplotlib', 'pandas', 'lightning'}"
    code = f"import sys, {module}; print([*{heavy} & {{*sys.modules}}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
