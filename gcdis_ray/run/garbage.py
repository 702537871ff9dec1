"""Garbage: attempts that no manifest refers to, and training scratch of committed artifacts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator

from gcdis_ray.store.storage import Storage, read_manifest
from gcdis_ray.training.plan import Progress, Show

_KEY = re.compile(r"[0-9a-f]{24}")  # anything else in the storage is not ours


def collect(
    storage: Storage,
    stages: Iterable[str],
    older_than_h: float,
    *,
    delete: bool,
    show: Show = lambda progress: None,
) -> Iterator[tuple[str, int]]:
    """Folders that can go, with their bytes; removed if ``delete``.

    A committed artifact keeps the attempts its manifest names and loses the others and its
    training scratch. One that is not committed is kept while anything in it is younger than
    ``older_than_h`` hours: it may be a run in progress, or one to resume.

    Args:
        show: how many artifacts have been looked at.
    """
    limit = time.time() - older_than_h * 3600
    every = [(stage, k) for stage in stages for k in storage.folders(stage) if _KEY.fullmatch(k)]
    for looked_at, (stage, key) in enumerate(every):
        base = f"{stage}/{key}"
        show(Progress(looked_at, len(every), "artifacts", note=base))
        manifest = read_manifest(storage, stage, key)
        if manifest is None:
            garbage = [base] if storage.newest(base) < limit else []
        else:
            used = {f.path.split("/", 1)[0] for files in manifest.files.values() for f in files}
            garbage = [f"{base}/{name}" for name in storage.folders(base) if name not in used]
            garbage = [folder for folder in garbage if storage.newest(folder) < limit]
        for folder in garbage:
            num_bytes = sum(storage.list(folder).values())
            if delete:
                storage.delete(folder)
            yield folder, num_bytes
