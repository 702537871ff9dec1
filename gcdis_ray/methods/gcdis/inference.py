"""What a trained discovery model says about stored crops.

Shape letters: N crops, K outputs, C clusters, D projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.gcdis.network import DiscoveryModel


class Inferred(NamedTuple):
    probabilities_NC: np.ndarray  # float32, rows sum to 1
    projections_ND: np.ndarray  # float32, unit rows


def num_clusters(spec: Mapping[str, Any]) -> int:
    """Clusters that ``encoder_spec`` tells apart: its groups of outputs, or all outputs."""
    return len(spec["groups"]) if "groups" in spec else int(spec["num_classes"])


def infer_crops(model: DiscoveryModel, spec: Mapping[str, Any], crops: pa.Table) -> Inferred:
    """Run ``model`` on un-augmented crops.

    Args:
        spec: ``encoder_spec``.
        crops: columns ``jpeg``, ``mask_png``; may be empty.
    """
    store = CropStore(crops, int(spec["cache_px"]), budget_mb=0)
    encoder, heat = spec["model"]["encoder"], float(spec["softmax_temperature"])
    views = CropViews(store, int(encoder["input_px"]), mask_input=bool(encoder["mask_input"]))
    dim = int(spec["model"]["heads"]["projection_dim"])
    probabilities = [torch.zeros(0, num_clusters(spec))]
    projections = [torch.zeros(0, dim)]
    with torch.inference_mode():
        for view in views.plain(torch.arange(crops.num_rows)):
            found = model(view)
            logits_NK = found.cosines_NK.float() / heat
            if "groups" in spec:
                probabilities.append(grouped_softmax(logits_NK, spec["groups"]))
            else:
                probabilities.append(torch.softmax(logits_NK, dim=1))
            projections.append(found.projections_ND.float())
    return Inferred(torch.cat(probabilities).numpy(), torch.cat(projections).numpy())


def grouped_softmax(logits_NK: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Softmax over the outputs that are in a group, summed within each group: (N, C)."""
    kept = [output for group in groups for output in group]
    cluster = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    shares_NK = torch.softmax(logits_NK[:, kept], dim=1)
    return shares_NK.new_zeros(len(shares_NK), len(groups)).index_add_(1, cluster, shares_NK)
