"""Small tables for tests of metrics, their judged cells, and metrics as scikit-learn computes them."""

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn import metrics


def table(dtype: type = np.float32, **layers) -> AnnData:
    """Lists are columns of layers, lists of lists their rows."""
    arrays = {name: np.asarray(values, dtype).reshape(len(values), -1) for name, values in layers.items()}
    n, m = next(iter(arrays.values())).shape
    obs = pd.DataFrame({"region": "fov1"}, index=[str(i) for i in range(n)])
    return AnnData(
        np.zeros((n, m), np.float32), obs, pd.DataFrame(index=["CD3", "CD8", "CD20", "PD1"][:m]), layers=arrays
    )


def judged(adata: AnnData, layer: str, channel, likely: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Truth and value of the cells that have both."""
    values, gold = adata.layers[layer][:, channel].ravel(), adata.layers["gold"][:, channel].ravel()
    keep = np.isfinite(values) & np.isin(gold, [0, 0.25, 0.75, 1] if likely else [0, 1])
    return gold[keep] > 0.5, values[keep]


def metrics_of_sklearn(positive: np.ndarray, score: np.ndarray, called: np.ndarray) -> dict[str, float]:
    return {
        "precision": metrics.precision_score(positive, called, zero_division=0),
        "recall": metrics.recall_score(positive, called),
        "specificity": metrics.recall_score(~positive, ~called),
        "f1": metrics.f1_score(positive, called),
        "accuracy": metrics.accuracy_score(positive, called),
        "auroc": metrics.roc_auc_score(positive, score),
        "average_precision": metrics.average_precision_score(positive, score),
    }
