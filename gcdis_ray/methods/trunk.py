"""The body that a trained method sees crops through: what of it stays as it is, what learns.

The driver prepares a :class:`Trunk` (:func:`prepare_trunk`): it reads the weights once, keeps them
in member ``trunk`` and, if views are cached, has them made (member ``views``). Training workers
then ask it for views and for the encoder that learns. A stored method opens the frozen part again
(:class:`~gcdis_ray.methods.crop_inputs.CropInputs`) and builds the same encoder
(:func:`build_encoder`).

Shape letters: N crops, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gcdis_ray.config import Closed
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.errors import ArtifactError
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk_check import FIXED, cannot_learn
from gcdis_ray.store.artifacts import Table, TensorFile
from gcdis_ray.store.members import Member, table, tensors
from gcdis_ray.store.schemas import schema

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gcdis_ray.data.crops.crop_store import CropStore
    from gcdis_ray.methods.crop_views import CropViews, Views
    from gcdis_ray.models.body_encoder import Encoder
    from gcdis_ray.models.encoder import AttentionOf
    from gcdis_ray.models.front import Front
    from gcdis_ray.runtime.base import Work

VIEWS = schema(  # of every crop, once through the frozen part of a trunk
    crop_index=pa.int64(),
    class_index=pa.int32(),  # as in crops
    rows=pa.list_(pa.float16()),  # of the plain view, then of each random one
)
TRUNK, VIEWS_MEMBER = "trunk", "views"
GIVES: tuple[Member, ...] = (
    tensors(TRUNK, optional=True),
    table(VIEWS_MEMBER, VIEWS, optional=True),
)
"""What a method that has a trunk leaves besides its own."""


class Body(Closed):
    """A body that is no resnet, as it is known once its weights are read.

    ``spec``: as document ``embed_spec``. ``in_shape``: of what enters the part that learns, without
    N; ``map_hw``: cells of the last map; None where nothing or all of it learns. ``same_padding``:
    strided convolutions pad as TensorFlow's, which tensors of a part of the body do not say.
    """

    spec: dict[str, Any]
    num_features: int
    in_shape: tuple[int, ...] | None = None
    map_hw: tuple[int, int] | None = None
    same_padding: bool = False


class TrunkSpec(Closed):
    """A trunk as plain data, all that it takes beside tensors to build it again."""

    encoder: EncoderConfig
    body: Body | None = None
    side_px: int
    cache_px: int

    @property
    def frozen(self) -> bool:
        """Whether crops go through a part that never learns."""
        return self.encoder.learns != "all"

    @property
    def is_embedding(self) -> bool:
        """Whether what enters the part that learns is the very embedding of a crop."""
        return self.encoder.body == "embed" and self.encoder.learns == "none"

    @property
    def mask_channel(self) -> bool:
        """Whether views have the mask as a fourth channel."""
        return self.encoder.mask_input if self.body is None else bool(self.body.spec["use_mask"])


@dataclass(frozen=True)
class Trunk:
    """What training sees crops through. Small to pickle: workers load what they need.

    Args:
        weights: of the whole body, as they were read; None if it starts from scratch.
        views: table ``views``, if they are cached.
    """

    spec: TrunkSpec
    weights: TensorFile | None = None
    views: Table | None = None

    @property
    def members(self) -> tuple[str, ...]:
        """Of tensors that it takes to open the trained method again."""
        return (TRUNK,) if self.spec.frozen and self.weights else ()

    def open_views(self, crops: Table, device: torch.device, cache_mb: int) -> Views:
        """What training sees of crops.

        Args:
            cache_mb: memory for decoded crops or cached views; beyond it they lie in a scratch
                file.
        """
        from gcdis_ray.data.crops.crop_store import CropStore
        from gcdis_ray.methods.cached_views import CachedViews
        from gcdis_ray.methods.front_views import FrontViews

        if self.views is not None:
            return CachedViews(self.views, self.spec.encoder.num_cached, cache_mb, device)
        views = crop_views(self.spec, CropStore(crops, self.spec.cache_px, cache_mb), device)
        if not self.spec.frozen:
            return views
        return FrontViews(views, build_front(self.spec, self._tensors(), str(device)))

    def build_encoder(self, attention: AttentionOf | None = None) -> Encoder:
        """The part that learns, with the weights it starts at."""
        tensors = self._tensors() if self.spec.encoder.learns != "none" else None
        return build_encoder(self.spec, tensors, attention)

    def _tensors(self) -> dict[str, Tensor] | None:
        return self.weights.load() if self.weights else None


def prepare_trunk(
    problem: Problem,
    encoder: EncoderConfig,
    augment: CropAugmentConfig,
    cache_px: int | None,
    work: Work,
) -> Trunk:
    """Read the body's weights, keep them, and cache views if the config says so. A trunk that comes
    with the problem stays as it is.

    Args:
        augment: of cached views; what training asks for later is not looked at.
        cache_px: side at which crops are kept; None: a quarter more than they are shown at.

    Raises:
        ConfigError: weights that cannot be used; a body that cannot learn, or not so much of it.
        ArtifactError: the body is that of stage embed, and there are no embeddings.
    """
    from gcdis_ray.methods.cached_views import CacheViews

    if problem.trunk is not None:
        return problem.trunk
    if encoder.body == "resnet":
        return resnet_trunk(encoder, cache_px)
    told, weights = _of_embed(problem) if encoder.body == "embed" else _of_timm(encoder)
    if encoder.learns != "none" and told["backbone"] in FIXED:
        raise cannot_learn(told["backbone"], "encoder")
    side_px = int(told["input_px"])
    found = TrunkSpec(
        encoder=EncoderConfig.model_validate(encoder.stored()),
        body=_measured(told, encoder, weights),
        side_px=side_px,
        cache_px=_cache(cache_px, side_px),
    )
    file = views = None
    if weights is not None:
        work.write_tensors(TRUNK, weights)
        file = work.tensor_file(TRUNK)
    if encoder.num_cached:
        task = CacheViews(found, file, augment, encoder.num_cached, problem.seed)
        tables = [problem.crops]
        if found.is_embedding and problem.space is not None:
            tables.append(problem.space.table("embeddings"))
        views = work.map_shards(task, tables, gives=[VIEWS_MEMBER])[VIEWS_MEMBER]
    return Trunk(found, file, views)


def resnet_trunk(encoder: EncoderConfig, cache_px: int | None) -> Trunk:
    """Of a resnet, which takes nothing from anywhere. Arguments as of :func:`prepare_trunk`."""
    side_px = encoder.side_px
    assert side_px is not None
    return Trunk(TrunkSpec(encoder=encoder, side_px=side_px, cache_px=_cache(cache_px, side_px)))


def _cache(cache_px: int | None, side_px: int) -> int:
    return cache_px if cache_px is not None else side_px * 5 // 4


def _of_embed(problem: Problem) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    space = problem.space
    if space is None:
        raise ArtifactError(
            "the body is that of stage embed, and there is none", where="embeddings"
        )
    weights = space.tensor_file("backbone").load() if space.has("backbone") else None
    return dict(space.json("embed_spec")), weights


def _of_timm(encoder: EncoderConfig) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    from gcdis_ray.backbones.network import default_side, read_weights

    network = encoder.backbone
    assert network is not None
    spec = {
        "backbone": network.model,
        "input_px": encoder.side_px or default_side(network.model),
        "use_mask": encoder.use_mask is not False,
        "features": encoder.features,
    }
    return spec, None if network.weights is None else read_weights(network)


def _measured(
    spec: Mapping[str, Any], encoder: EncoderConfig, weights: Mapping[str, Tensor] | None
) -> Body:
    """Sizes of what goes through a body, seen by letting one crop through."""
    import torch

    side, learns = int(spec["input_px"]), encoder.learns
    crop = torch.zeros(1, 3, side, side), torch.ones(1, 1, side, side)
    if learns == "none":
        rows = _vector_front(spec, weights, "cpu")(*crop)
        return Body(spec=dict(spec), num_features=rows.shape[1])
    from gcdis_ray.backbones.frozen import feature_kind, joined_features
    from gcdis_ray.backbones.network import build_backbone

    body = build_backbone(spec["backbone"], weights, side).eval()
    kind = feature_kind(body, spec["features"])
    told = dict(spec) | {"features": kind}
    with torch.no_grad():
        if learns == "all":
            seen = body.tokens(crop[0])
            return Body(spec=told, num_features=joined_features(*seen, None, kind).shape[1])
        front, tail = body.split(int(learns))
        entering = front(crop[0])
        seen = tail.tokens(entering)
    height, width = seen[1].shape[2:]
    return Body(
        spec=told,
        num_features=joined_features(*seen, None, kind).shape[1],
        in_shape=tuple(entering.shape[1:]),
        map_hw=(height, width),
        same_padding=bool(body.same_padding),
    )


def build_front(spec: TrunkSpec, tensors: Mapping[str, Tensor] | None, device: str) -> Front:
    """The part that never learns.

    Args:
        tensors: of member ``trunk``.
    """
    from gcdis_ray.backbones.network import build_backbone
    from gcdis_ray.models.front import MapFront

    body = spec.body
    assert body is not None
    if spec.encoder.learns == "none":
        return _vector_front(body.spec, tensors, device)
    backbone = build_backbone(body.spec["backbone"], tensors, spec.side_px)
    # moved as a whole: a head borrows tensors of the whole, which its own modules do not have
    head, _ = backbone.eval().to(device).split(int(spec.encoder.learns))
    return MapFront(head, body.map_hw if spec.mask_channel else None).to(device)


def _vector_front(
    spec: Mapping[str, Any], tensors: Mapping[str, Tensor] | None, device: str
) -> Front:
    from gcdis_ray.methods.embedding import open_backbone
    from gcdis_ray.models.front import VectorFront

    body = open_backbone(spec, tensors, device)
    return VectorFront(body, use_mask=bool(spec["use_mask"])).to(device)


def build_encoder(
    spec: TrunkSpec,
    tensors: Mapping[str, Tensor] | None = None,
    attention: AttentionOf | None = None,
) -> Encoder:
    """The part that learns. Its forward gives features (N, F) and the saliencies of the stages
    ``attended``; ``num_features`` is F.

    Args:
        tensors: that a body starts at; None: fresh weights from torch's generator.
        attention: makes the gate after each stage; for encoders with stages that learn.

    Raises:
        ConfigError: attention, and there are no such stages.
    """
    from gcdis_ray.models.encoder import ResNetEncoder

    settings, body = spec.encoder, spec.body
    if body is None:
        return ResNetEncoder(
            block=settings.block,
            blocks=settings.blocks,
            widths=settings.widths,
            stem_width=settings.stem_width,
            stem_kernel=settings.stem_kernel,
            stem_stride=settings.stem_stride,
            stem_pool=settings.stem_pool,
            channels=4 if settings.mask_input else 3,
            attention=attention,
        )
    from gcdis_ray.backbones.network import build_backbone
    from gcdis_ray.backbones.same_padding import pad_as_tensorflow
    from gcdis_ray.models.body_encoder import RowEncoder, TailEncoder, WholeEncoder

    if settings.learns == "none":
        return RowEncoder(body.num_features)
    backbone = build_backbone(body.spec["backbone"], tensors, spec.side_px).eval()
    kind, masked = body.spec["features"], spec.mask_channel
    if settings.learns == "all":
        return WholeEncoder(backbone, kind, body.num_features, use_mask=masked, attention=attention)
    assert body.in_shape is not None
    if body.same_padding:
        pad_as_tensorflow(backbone.net)
    _, tail = backbone.split(int(settings.learns))
    return TailEncoder(
        tail, body.in_shape, body.map_hw if masked else None, kind, body.num_features
    )


def crop_views(spec: TrunkSpec, store: CropStore, device: torch.device) -> CropViews:
    """Views as a trunk's front, or else the part that learns, takes them."""
    from gcdis_ray.methods.crop_views import CropViews

    masked = spec.frozen or spec.mask_channel
    return CropViews(store, spec.side_px, mask_input=masked, device=device)
