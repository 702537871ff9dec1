"""What a trained f_d says about stored crops.

Shape letters: N crops, K outputs, D projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch

from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.gcdis.network import DiscoveryModel
from gcdis_ray.methods.method import Inferred


def infer_crops(model: DiscoveryModel, spec: Mapping[str, Any], crops: pa.Table) -> Inferred:
    """Run ``model``, on the device it is on, on un-augmented crops.

    Args:
        spec: of :func:`gcdis_ray.methods.gcdis.method.fit`.
        crops: columns ``jpeg``, ``mask_png``; may be empty.
    """
    store = CropStore(crops, int(spec["cache_px"]), budget_mb=0)
    encoder, heat = spec["model"]["encoder"], float(spec["softmax_temperature"])
    views = CropViews(
        store,
        int(encoder["input_px"]),
        mask_input=bool(encoder["mask_input"]),
        device=next(model.parameters()).device,
    )
    probabilities = [torch.zeros(0, int(spec["num_classes"]))]
    projections = [torch.zeros(0, int(spec["model"]["heads"]["projection_dim"]))]
    with torch.inference_mode():
        for view in views.plain(torch.arange(crops.num_rows)):
            found = model(view)
            probabilities.append(torch.softmax(found.cosines_NK.float().cpu() / heat, dim=1))
            projections.append(found.projections_ND.float().cpu())
    return Inferred(torch.cat(probabilities).numpy(), torch.cat(projections).numpy())
