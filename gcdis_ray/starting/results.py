"""Masks of unlabeled images that were made elsewhere, if they lie beside the annotations."""

from __future__ import annotations

import numpy as np

from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.records.fields import whole_number
from gcdis_ray.records.results import results_section
from gcdis_ray.starting.contents import Contents

MIN_SHARE = 0.5  # of the unlabeled images: masks of other images, such as of a test, are not meant


def unlabeled_masks(contents: Contents, config: DataConfig) -> str | None:
    """Address of the first results file that has masks on most unlabeled images."""
    names = contents.results_beside(config.files())
    images = plan_data(config).images["unlabeled"].image_id_N if names else np.zeros(0, np.int64)
    for name in names:
        file = JsonFile(contents.folder, name)
        told = (raw.get("image_id") for raw in file.records(results_section(file)))
        ids = {number for number in map(whole_number, told) if number is not None}
        if np.isin(images, list(ids)).mean() >= MIN_SHARE:
            return f"{contents.folder.uri}/{name}"
    return None
