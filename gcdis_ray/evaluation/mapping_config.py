"""How outputs of the segmenter are given names of true classes, and in what words that is told.

Sources of the protocols: RNCDL (Fomenko et al., NeurIPS 2022) names true boxes of the validation
images by its classifier and matches all outputs to all classes; PANDAS (Hayes et al., 2024) does so
for novel classes only; generalized category discovery (Vaze et al., CVPR 2022) matches on the
unlabeled training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from gcdis_ray.config import Closed

Source = Literal["train_gt", "split_val", "gt_crops", "detections"]
Scope = Literal["novel_only", "all"]
Drop = Literal["before_topk", "after_topk"]

_SOURCES: Mapping[Source, str] = {
    "train_gt": "crops of unlabeled training images, matched to true objects at IoU >= {iou:g}",
    "split_val": "detections on one half of the validation images (by a hash of the image id), "
    "matched to true objects at IoU >= {iou:g}; the other half is scored",
    "gt_crops": "true objects of the validation images, cut out and named by the discovery model",
    "detections": "detections on the validation images, matched to true objects at IoU >= {iou:g}",
}
_SCOPES: Mapping[Scope, str] = {
    "novel_only": "known outputs stand for their own class, one Hungarian assignment over the "
    "other outputs x novel classes",
    "all": "one Hungarian assignment over all outputs x all classes",
}
_DROPS: Mapping[Drop, str] = {
    "after_topk": "outputs that stand for no class are dropped after the cut to the {best} best "
    "detections of an image, and use them up",
    "before_topk": "outputs that stand for no class are dropped before the cut to the {best} best "
    "detections of an image, taken from its {kept} best of all outputs",
}
_NAMES: Mapping[tuple[Scope, Source, Drop], str] = {
    ("all", "gt_crops", "after_topk"): "RNCDL",
    ("novel_only", "gt_crops", "after_topk"): "PANDAS",
    ("all", "train_gt", "after_topk"): "GCD",
    ("novel_only", "train_gt", "after_topk"): "default",
}


class MappingConfig(Closed):
    """Which true class an output stands for when detections are scored.

    ``{scope: all, source: gt_crops, drop: after_topk}`` is RNCDL's protocol, with every class in
    one label space. ``train_gt`` and ``split_val`` are free of leaks: no label of a scored image is
    used for the mapping. The other two sources use them, which is an upper bound.
    """

    source: Source = Field(
        default="train_gt",
        description="train_gt (ours, GCD; leak-free): crops of unlabeled training images; "
        "split_val (leak-free): detections on half of the validation images, the other half is "
        "scored; gt_crops (RNCDL, PANDAS): true objects of the validation images, named by the "
        "discovery model; detections (for segmenters that cannot name given boxes): detections on "
        "the validation images",
    )
    scope: Scope = Field(
        default="novel_only",
        description="novel_only (ours, PANDAS): known classes stand for themselves; all (RNCDL, "
        "GCD): known outputs can be given other names too",
    )
    drop: Drop = Field(
        default="after_topk",
        description="outputs that stand for no class leave after_topk (ours, RNCDL; PANDAS does "
        "not tell): they use up the detections kept per image, or before_topk: others move up",
    )

    @property
    def name(self) -> str | None:
        """Whose protocol it is; None for a combination that nobody has published."""
        return _NAMES.get((self.scope, self.source, self.drop))

    @property
    def leak_free(self) -> bool:
        return self.source in ("train_gt", "split_val")

    def words(self, iou: float, best: int, kept: int) -> str:
        """The protocol in a sentence, for the metrics and the report.

        Args:
            iou: least overlap of a match.
            best, kept: detections per image that are scored, and that were stored.
        """
        source = _SOURCES[self.source].format(iou=iou)
        drop = _DROPS[self.drop].format(best=best, kept=kept)
        leak = (
            "no label of a scored image is used"
            if self.leak_free
            else "labels of the scored images are used: an upper bound"
        )
        name = {None: "", "default": ""}.get(self.name, f"as in {self.name}: ")
        return f"{name}{_SCOPES[self.scope]}, counted on {source} ({leak}); {drop}"
