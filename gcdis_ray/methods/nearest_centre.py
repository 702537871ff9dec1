"""A method without a network of its own: crops go to the nearest of some centres in a space of the
frozen embeddings.

Shape letters: N crops, D dimensions of the embeddings, C of the space that centres lie in, K
outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.clustering.spaces import Space
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.methods.embedding import EmbedCrops, open_embedding
from gcdis_ray.methods.method import InferEach, Inferred


@dataclass(frozen=True)
class NearestCentre:
    """Says which centre a crop lies nearest to. Implements
    :class:`gcdis_ray.methods.method.Trained`.

    Args:
        centres_KC: unit rows, or zeros for an output that stands for nothing.
        temperature: of the softmax over cosines.
        embed_spec, backbone: how crops without an embedding get one; see
            :func:`gcdis_ray.methods.embedding.open_embedding`.
    """

    space: Space
    centres_KC: Tensor
    temperature: float
    embed_spec: Mapping[str, Any]
    backbone: Mapping[str, Tensor] | None

    @property
    def num_outputs(self) -> int:
        return len(self.centres_KC)

    @property
    def width(self) -> int:
        return self.centres_KC.shape[1]

    @cached_property
    def _embed(self) -> EmbedCrops:
        return open_embedding(self.embed_spec, self.backbone, str(self.centres_KC.device))

    def infer(self, crops: pa.Table) -> Inferred:
        if not crops.num_rows:
            return Inferred(
                np.zeros((0, self.num_outputs), np.float32), np.zeros((0, self.width), np.float32)
            )
        if "embedding" in crops.column_names:
            vectors_ND = torch.tensor(matrix(crops["embedding"]))
        else:
            vectors_ND = torch.from_numpy(self._embed(crops))
        points_NC = self.space.place(vectors_ND)
        logits_NK = points_NC @ self.centres_KC.T / self.temperature
        logits_NK = logits_NK.masked_fill(~self.centres_KC.any(dim=1), -torch.inf)
        probabilities_NK = torch.softmax(logits_NK, dim=1)
        return Inferred(probabilities_NK.cpu().numpy(), points_NC.cpu().numpy())

    def each(self, snapshots: Sequence[Mapping[str, Tensor]]) -> InferEach:
        raise NotImplementedError("a method of centres has no snapshots")

    def prototypes_KF(self) -> NDArray[np.float32]:
        return self.centres_KC.cpu().numpy()
