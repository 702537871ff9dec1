"""Cached views: equal bytes for any shards, and what training draws from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from marked import looks_into_proc
from small_discovery import SHARDS
from small_trunk import NUM, SIDE_PX, crops_in, encoder_of, trunk_of
from tables import SCHEMAS

from gcdis_ray.data.crops import crop_store
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.methods.cached_views import CachedViews, CacheViews
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.front_views import FrontViews
from gcdis_ray.methods.trunk import build_front
from gcdis_ray.models.front import Front
from gcdis_ray.run.work import StageWork, local_work
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.storage import LocalStorage

CPU, AUGMENT = torch.device("cpu"), CropAugmentConfig()
VIEWS = 3
ROWS = torch.tensor([7, 0, 11, 0])


def cached(work: StageWork, encoder: EncoderConfig, shards: list[list[int]] = SHARDS) -> Table:
    views = trunk_of(work, crops_in(work, shards), encoder).views
    assert views is not None
    return views


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderConfig:
    folder = tmp_path_factory.mktemp("weights")
    return encoder_of(folder, "test_efficientnet", trainable=1, cached_views=VIEWS)


@pytest.fixture(scope="module")
def table(encoder: EncoderConfig, tmp_path_factory: pytest.TempPathFactory) -> Table:
    return cached(local_work(LocalStorage(str(tmp_path_factory.mktemp("a"))), SCHEMAS), encoder)


def test_bytes_do_not_depend_on_shards(local_work, encoder: EncoderConfig, table: Table):
    flat = [[y for shard in SHARDS for y in shard]]
    once = cached(local_work, encoder, flat).read()
    assert [shard.rows for shard in table.shards] == [len(shard) for shard in SHARDS]
    assert once["crop_index"].to_pylist() == list(range(NUM))
    assert once["class_index"].to_pylist() == flat[0]
    assert once.combine_chunks().equals(table.read().combine_chunks())


def test_on_a_cpu_views_of_a_crop_go_by_themselves_elsewhere_those_of_many_together(
    local_work, encoder: EncoderConfig, monkeypatch: pytest.MonkeyPatch
):
    trunk = trunk_of(local_work, crops_in(local_work, SHARDS), encoder)
    crops = local_work.table("crops").read().combine_chunks()
    task = CacheViews(trunk.spec, trunk.weights, AUGMENT, VIEWS, seed=3)
    front = build_front(trunk.spec, trunk.weights.load() if trunk.weights else None, "cpu")
    forward, sizes, decoded = Front.forward, list[int](), list[int]()

    def counted(self: Front, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return forward(self, images, masks)

    def noted(jpegs: list, *rest, **options) -> None:
        decoded.append(len(jpegs))
        decode(jpegs, *rest, **options)

    decode = crop_store._decode
    with monkeypatch.context() as patch:
        patch.setattr(Front, "forward", counted)
        patch.setattr(crop_store, "_decode", noted)
        alone = task.rows(crops, front, CPU)
        assert sizes == [1, VIEWS] * NUM
        assert decoded == [NUM]
        sizes.clear()
        together = task.rows(crops, front, CPU, together=True)
        assert sizes == [NUM * (1 + VIEWS)]
    np.testing.assert_allclose(alone, together, rtol=2e-2, atol=2e-3)
    shown = CropViews(CropStore(crops, trunk.spec.cache_px, 0), SIDE_PX, mask_input=True)
    for row in (0, NUM - 1):  # the same by hand, bit by bit
        state = np.random.SeedSequence([3, row]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) & (2**63 - 1))
        views, same = FrontViews(shown, front), torch.full((VIEWS,), row)
        ((random, _),) = views.random(same, 1, AUGMENT, generator)
        want = torch.cat([next(views.plain(same[:1])), random]).half()
        assert alone[row].tobytes() == want.numpy().tobytes()


def test_plain_rows_and_random_ones_are_those_of_the_table(table: Table):
    rows = np.concatenate([matrix(shard["rows"]) for shard in table.iter_shards() if len(shard)])
    stored = torch.from_numpy(rows.copy()).float().unflatten(1, (1 + VIEWS, -1))
    assert not torch.equal(stored[:, 1], stored[:, 2])
    views = CachedViews(table, VIEWS, 1, CPU)
    assert torch.equal(torch.cat(list(views.plain(ROWS))), stored[ROWS, 0])
    assert list(views.plain(ROWS[:0])) == []
    found, again = (
        views.random(ROWS, VIEWS + 1, AUGMENT, torch.Generator().manual_seed(2)) for _ in range(2)
    )
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(found, again, strict=True))
    assert all(masks.shape == (len(ROWS), 1, 0, 0) for _, masks in found)
    for place, row in enumerate(ROWS.tolist()):
        drawn = [(seen[place] == stored[row]).all(dim=1).nonzero().item() for seen, _ in found]
        assert sorted(drawn[:VIEWS]) == [1, 2, 3]  # different ones while there are some
        assert drawn[VIEWS] == drawn[0]
    seeds = [views.random(ROWS, 1, AUGMENT, torch.Generator().manual_seed(s)) for s in range(4)]
    assert any(not torch.equal(seeds[0][0][0], other[0][0]) for other in seeds[1:])


@looks_into_proc
def test_beyond_the_budget_they_lie_in_a_file_and_are_the_same(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held, mapped = (CachedViews(table, VIEWS, budget, CPU) for budget in (1, 0))
    left = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert max(left, default=0) < 100  # notes: the file has no name
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    for views in (held, mapped):
        assert views.labels.tolist() == [y for shard in SHARDS for y in shard]
    every = torch.arange(NUM)
    assert torch.equal(*(torch.cat(list(views.plain(every))) for views in (held, mapped)))


def test_what_float16_cannot_hold_is_refused(
    local_work, encoder: EncoderConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Front, "forward", lambda self, images, masks: torch.full((1, 4), 1e6))
    with pytest.raises(DataError, match="beyond float16") as error:
        cached(local_work, encoder)
    assert "cached_views: 0" in str(error.value)


def test_without_a_crop_there_is_nothing_to_draw(local_work, encoder: EncoderConfig):
    with pytest.raises(DataError, match="no crop to learn from"):
        CachedViews(cached(local_work, encoder, [[], []]), VIEWS, 1, CPU)
