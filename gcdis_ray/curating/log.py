"""The log of what people decided, in a storage: read, and added to.

It belongs to a set of crops, by the key of the artifact that they lie in, and lies beside the
artifacts, in ``names/<that key>/``. What is added at once is one file there, ``00000.json``,
``00001.json``, ... of one act a line; all of them in order are the log. A file is created only if
absent, so two that add at the same time lose nothing: the second looks again at what the log now
says. ``gcdis gc`` leaves the folder alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from gcdis_ray.curating.acts import Act, parse_log, to_line
from gcdis_ray.errors import CurationError
from gcdis_ray.store.storage import Storage

FOLDER = "names"
_NAME = re.compile(r"\d{5,}\.json")
_READERS = 16  # small files read at a time: a bucket takes as long for one as for many


def read_log(storage: Storage, crops_key: str) -> list[Act]:
    """All acts about these crops, in order; none where there is no log.

    Args:
        crops_key: of the artifact that ``crops`` lie in.

    Raises:
        CurationError: a line that is no act, with its file and number; a file that is missing
            between others.
        StorageError: the storage cannot be read.
    """
    return _read(storage, crops_key, _num_files(storage, crops_key))


def append(
    storage: Storage,
    crops_key: str,
    acts: Sequence[Act],
    check: Callable[[list[Act]], object] = lambda acts: None,
) -> list[Act]:
    """Add acts to the log, all or none of them.

    Args:
        check: is told the whole log as it will be, and raises what keeps the acts out; it is told
            again if others add to the log in the meantime.

    Returns:
        the whole log.

    Raises:
        CurationError: as :func:`read_log`, and what ``check`` raises.
        StorageError: the storage cannot be written.
    """
    data = "".join(f"{to_line(act)}\n" for act in acts).encode()
    while True:
        number = _num_files(storage, crops_key)
        log = [*_read(storage, crops_key, number), *acts]
        check(log)
        if not acts or storage.create(_path(crops_key, number), data):
            return log


def _num_files(storage: Storage, crops_key: str) -> int:
    """Of the log; files of others in its folder, such as a file manager's, are none of it."""
    names = (path.rpartition("/")[2] for path in storage.list(f"{FOLDER}/{crops_key}"))
    return sum(bool(_NAME.fullmatch(name)) for name in names)


def _path(crops_key: str, number: int) -> str:
    return f"{FOLDER}/{crops_key}/{number:05d}.json"


def _read(storage: Storage, crops_key: str, files: int) -> list[Act]:
    paths = [_path(crops_key, number) for number in range(files)]
    with ThreadPoolExecutor(_READERS) as pool:
        return [act for acts in pool.map(lambda p: _acts(storage, p), paths) for act in acts]


def _acts(storage: Storage, path: str) -> list[Act]:
    where = f"{storage.uri}/{path}"
    try:
        text = storage.read(path).decode()
    except FileNotFoundError:
        raise CurationError(
            "is missing, and the log has other files",
            where=where,
            fix="files of a log are numbered from 00000.json on, without a gap",
        ) from None
    except UnicodeDecodeError as error:
        raise CurationError(f"is no UTF-8 ({error.reason})", where=where) from None
    return parse_log(text, where)
