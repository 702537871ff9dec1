"""S3-compatible services: the one home of boto3, for storage and for source data alike.

A prefix of a bucket is read as streams that survive broken connections, and written whole or not at
all: objects of more than one part go up as multipart uploads, which are aborted if a part fails.
Every request is repeated with growing pauses while the service is busy (503) or the line breaks.
What still fails is a :class:`~gcdis_ray.errors.StorageError` that names the URI; an object that is
not there is a FileNotFoundError.

Services other than AWS know a part of the protocol. Nothing is asked of them that can be done in
another way: no checksums in requests, and objects are deleted one by one where they cannot be
deleted together. What cannot be done without is tried before a run starts (:meth:`Prefix.check`).
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlparse

from gcdis_ray.errors import StorageError
from gcdis_ray.store.meter import count

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from pyarrow.fs import S3FileSystem

PART_BYTES = 16 << 20  # of a multipart upload; 10,000 parts are allowed: 156 GiB an object
CONNECTIONS = 16  # of a process, and requests at a time where many objects are wanted
_BUFFER_BYTES = 1 << 20
_BATCH = 1000  # keys of a listing's page or of a request to delete: the service's own limit
_ATTEMPTS = 5  # of a request, with pauses of up to 1, 2, 4, 8 s
_MISSING = ("NoSuchKey", "404", "NotFound")
_REFUSALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied", "403")
_REGIONS = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "307")
_BUSY_CODES = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout")  # of one object
_PASSING = (429, 502, 503, 504)  # later it may go well; a 500 can be all that a service ever says
_REACH = (
    "check the network and the endpoint: AWS_ENDPOINT_URL, storage_endpoint, or the endpoint "
    "beside the address in the config"
)
_BUSY = "the service is busy or broken: run again later, finished work is kept"
_RIGHTS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and your rights"
_LACKS = "use a version of the service that can do this, another service, or a folder"
_PROMISE = (
    "a result is committed by creating an object only if there is none (If-None-Match: *), since "
    "two runs must not overwrite each other's: " + _LACKS
)
_MAKING = threading.Lock()  # boto3 makes one client at a time


def service_endpoint(endpoint: str | None, where: str) -> str | None:
    """The service to ask: the one given, else ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``; None
    is AWS, or what a profile names.

    Args:
        where: the config key that gives it.

    Raises:
        StorageError: it is no URL.
    """
    for name in () if endpoint else ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        where, endpoint = name, os.environ.get(name)
        if endpoint:
            break
    if endpoint and urlparse(endpoint).scheme not in ("http", "https"):
        raise StorageError(f"not a URL: {endpoint!r}", where=where, fix="use http(s)://host:port")
    return endpoint or None


# What services other than AWS may not know is not sent. What we store has SHA-256 of our own.
_MODEST: dict[str, Any] = {
    "s3": {"addressing_style": "path"},
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


@lru_cache(maxsize=8)
def client(endpoint: str | None) -> Any:
    """A boto3 client. Threads may share it, and ask for it."""
    import boto3
    from botocore.config import Config

    def made(settings: Mapping[str, Any]) -> Any:
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            **settings,
        )
        return boto3.client(
            "s3", endpoint_url=endpoint, region_name=_region() or "us-east-1", config=config
        )

    with _MAKING:
        if endpoint:
            return made(_MODEST)
        found = made({})
        return found if _is_aws(found.meta.endpoint_url) else made(_MODEST)  # of a profile


def _is_aws(url: str) -> bool:
    return (urlparse(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def path_and_filesystem(uri: str, endpoint: str | None) -> tuple[str, S3FileSystem | None]:
    """A folder or prefix as a path and a pyarrow filesystem, for libraries that ask for them; no
    filesystem where the path says it all."""
    if urlparse(uri).scheme != "s3" or not endpoint:
        return uri, None
    from pyarrow.fs import S3FileSystem

    parts, region = urlparse(endpoint), _region()
    options = {"region": region} if region else {}
    filesystem = S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, **options)
    return uri.removeprefix("s3://"), filesystem


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


@contextmanager
def errors(where: str) -> Iterator[None]:
    """Turn what boto3 raises into FileNotFoundError or StorageError."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
    )

    try:
        yield
    except NoCredentialsError as error:
        raise StorageError(
            "no S3 credentials found",
            where=where,
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a machine role",
        ) from error
    except ClientError as error:
        if _code(error) in _MISSING:
            raise FileNotFoundError(where) from error
        raise StorageError(_refusal(error), where=where, fix=_advice(error)) from error
    except ParamValidationError as error:
        raise StorageError(
            "no name that S3 allows", where=where, fix="check the bucket's name and the path"
        ) from error
    except BotoCoreError as error:
        raise StorageError(
            f"S3 cannot be reached ({type(error).__name__})", where=where, fix=_REACH
        ) from error


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "?")


def _code_of(cause: BaseException | None) -> str | None:
    from botocore.exceptions import ClientError

    return _code(cause) if isinstance(cause, ClientError) else None


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _is_lacking(error: ClientError) -> bool:
    """The service does not know such a request, and will not later."""
    return _status(error) in (405, 501) or _code(error) == "NotImplemented"


def _is_busy(error: ClientError) -> bool:
    """Later it may go well."""
    return not _is_lacking(error) and (_status(error) >= 500 or _status(error) == 429)


def _refusal(error: ClientError) -> str:
    message = " ".join(error.response.get("Error", {}).get("Message", "").split())[:200]
    said = f"{_code(error)}: {message}" if message else _code(error)
    if _is_lacking(error):
        return f"the service cannot do what S3 calls {error.operation_name} ({said})"
    return f"S3 refused the request ({said})"


def _advice(error: ClientError) -> str:
    if _code(error) in _REFUSALS:
        return _RIGHTS
    if _is_lacking(error):
        return _LACKS
    if _is_busy(error):
        return _BUSY
    if _code(error) in _REGIONS:
        return "set AWS_REGION to the region of the bucket"
    return "check the bucket's name and your rights to it, then run again"


@dataclass(frozen=True)
class Object:
    """What a listing or a HEAD says."""

    path: str  # relative to the prefix
    num_bytes: int
    etag: str
    modified: float  # seconds since 1970


@dataclass(frozen=True)
class Prefix:
    """``s3://bucket/prefix``; paths are relative to it. Pickles to workers.

    Methods raise StorageError, and FileNotFoundError where one object is asked for.
    """

    location: str
    endpoint: str | None = None

    @property
    def bucket(self) -> str:
        return self.location.removeprefix("s3://").partition("/")[0]

    def key(self, path: str) -> str:
        prefix = self.location.removeprefix("s3://").partition("/")[2].strip("/")
        return "/".join(part for part in (prefix, path) if part)

    def uri(self, path: str) -> str:
        return f"{self.location}/{path}".rstrip("/")

    def open(self, path: str) -> BinaryIO:
        """A buffered stream; nothing is fetched ahead of its reader but a buffer."""
        return cast(BinaryIO, io.BufferedReader(ObjectStream(self, path), _BUFFER_BYTES))

    def read(self, path: str) -> bytes:
        with ObjectStream(self, path) as stream:
            return stream.readall()

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """``size`` bytes from byte ``start`` on, fewer where the object ends."""
        if size == 0:
            self.head(path)  # an empty range cannot be asked for
            return b""
        try:
            with ObjectStream(self, path, (start, size)) as stream:
                return stream.readall()
        except StorageError as error:
            if _code_of(error.__cause__) == "InvalidRange":  # the object ends before
                return b""
            raise

    def head(self, path: str) -> Object:
        with errors(self.uri(path)):
            answer = client(self.endpoint).head_object(Bucket=self.bucket, Key=self.key(path))
            return Object(
                path, answer["ContentLength"], answer["ETag"], answer["LastModified"].timestamp()
            )

    def write(self, path: str, data: bytes) -> None:
        """Whole or not at all."""
        if len(data) > PART_BYTES:
            return self.write_file(path, io.BytesIO(data))
        count(written_bytes=len(data))
        with errors(self.uri(path)):
            client(self.endpoint).put_object(Bucket=self.bucket, Key=self.key(path), Body=data)

    def write_file(self, path: str, file: BinaryIO) -> None:
        """:meth:`write` of what a file holds from where it stands."""
        from boto3.s3.transfer import TransferConfig

        start = file.tell()
        count(written_bytes=file.seek(0, io.SEEK_END) - start)
        file.seek(start)
        with errors(self.uri(path)):
            client(self.endpoint).upload_fileobj(  # aborts the upload if a part fails
                file,
                self.bucket,
                self.key(path),
                Config=TransferConfig(
                    multipart_threshold=PART_BYTES,
                    multipart_chunksize=PART_BYTES,
                    max_concurrency=4,
                ),
            )

    def create(self, path: str, data: bytes) -> bool:
        """Write if nothing is there. False: it was there."""
        with errors(self.uri(path)):
            return self._create(path, data)

    def _create(self, path: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        for _ in range(_ATTEMPTS):
            try:
                client(self.endpoint).put_object(
                    Bucket=self.bucket, Key=self.key(path), Body=data, IfNoneMatch="*"
                )
                count(written_bytes=len(data))
                return True
            except ClientError as error:
                if _status(error) in (304, 412):  # 304 is what some services say for 412
                    return False
                if _status(error) != 409:  # 409: a concurrent create is under way, ask again
                    raise
        return False

    def check(self, path: str) -> None:
        """Create an object twice and delete it.

        Args:
            path: where nothing is, and nobody else writes.

        Raises:
            StorageError: one of these cannot be done, or the service writes over what is there
                though it is told not to, so that nothing can be committed there.
        """
        problem = self._broken_promise(path)
        self.delete([path])
        if problem:
            raise StorageError(problem, where=self.location, fix=_PROMISE)

    def _broken_promise(self, path: str) -> str | None:
        from botocore.exceptions import ClientError

        with errors(self.uri(path)):
            try:
                first = self._create(path, b"")
            except ClientError as error:
                if _status(error) in _PASSING:
                    raise
                # What fails here as well has nothing to do with the condition.
                client(self.endpoint).put_object(Bucket=self.bucket, Key=self.key(path), Body=b"")
                return f"the service refuses to create objects on that condition ({_code(error)})"
        try:
            second = self.create(path, b"")
        except StorageError:  # for another reason than the condition: that went well once
            with suppress(StorageError):
                self.delete([path])
            raise
        if second:
            return "the service writes over an object although it is told to create it only"
        if not first:  # a request that was repeated can have met its own first try
            try:
                self.head(path)
            except FileNotFoundError:
                return "the service says of an object that is not there that it is"
        return None

    def objects(self, folder: str) -> Iterator[Object]:
        """Everything below a folder, in order of path."""
        start = len(self.key("x")) - 1
        for page in self._pages(folder):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # a marker that some programs make for a folder
                    yield Object(
                        item["Key"][start:],
                        item["Size"],
                        item["ETag"],
                        item["LastModified"].timestamp(),
                    )

    def folders(self, folder: str) -> list[str]:
        return sorted(
            item["Prefix"].rstrip("/").rsplit("/", 1)[-1]
            for page in self._pages(folder, Delimiter="/")
            for item in page.get("CommonPrefixes", [])
        )

    def has_any(self, folder: str) -> bool:
        """Whether there is an object below a folder, markers included."""
        return any(page.get("Contents") for page in self._pages(folder))

    def _pages(self, folder: str, **more: Any) -> Iterator[dict[str, Any]]:
        key = self.key(folder).rstrip("/")
        with errors(self.uri(folder)):
            yield from (
                client(self.endpoint)
                .get_paginator("list_objects_v2")
                .paginate(
                    Bucket=self.bucket,
                    Prefix=f"{key}/" if key else "",
                    PaginationConfig={"PageSize": _BATCH},
                    **more,
                )
            )

    def delete(self, paths: Iterable[str]) -> None:
        """Those that are not there are fine."""
        keys = [self.key(path) for path in paths]
        with errors(self.location):
            for start in range(0, len(keys), _BATCH):
                self._delete_together(keys[start : start + _BATCH])

    def _delete_together(self, keys: Sequence[str]) -> None:
        from botocore.exceptions import ClientError

        try:
            answer = client(self.endpoint).delete_objects(
                Bucket=self.bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
        except ClientError as error:
            if _status(error) in _PASSING:
                raise
            # Some services do not know the request, or refuse the checksum that it must have.
            self._delete_one(keys[0])
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(pool.map(self._delete_one, keys[1:]))
            return
        if failed := [e for e in answer.get("Errors", []) if e.get("Code") not in _MISSING]:
            raise StorageError(
                f"{len(failed)} objects cannot be deleted ({failed[0].get('Code')})",
                where=f"s3://{self.bucket}/{failed[0].get('Key')}",
                fix=_BUSY if failed[0].get("Code") in _BUSY_CODES else _RIGHTS,
            )

    def _delete_one(self, key: str) -> None:
        from botocore.exceptions import ClientError

        try:
            client(self.endpoint).delete_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if _code(error) not in _MISSING:
                raise


class ObjectStream(io.RawIOBase):
    """One version of an object, or a part of it, read in order. If the line breaks, the rest is
    asked for anew."""

    def __init__(self, prefix: Prefix, path: str, part: tuple[int, int] | None = None) -> None:
        """Args:
            part: first byte and number of bytes, if not all.

        Raises: FileNotFoundError, StorageError.
        """
        super().__init__()
        self._prefix, self._path = prefix, path
        self._body: Any = None
        self._place, asked = part[0] if part else 0, {}
        if part:
            asked["Range"] = f"bytes={part[0]}-{sum(part) - 1}"
        answer = self._get(**asked)
        self._etag, self._end = answer["ETag"], self._place + answer["ContentLength"]
        self._body = answer["Body"]

    def _get(self, **more: Any) -> dict[str, Any]:
        prefix = self._prefix
        with errors(prefix.uri(self._path)):
            return client(prefix.endpoint).get_object(
                Bucket=prefix.bucket, Key=prefix.key(self._path), **more
            )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        if self._place >= self._end:
            return 0
        for attempt in range(_ATTEMPTS):
            try:
                if self._body is None:
                    rest = f"bytes={self._place}-{self._end - 1}"
                    self._body = self._get(Range=rest, IfMatch=self._etag)["Body"]
                data = self._body.read(min(len(buffer), self._end - self._place))
            except (BotoCoreError, HTTPError, OSError) as error:
                self._drop()
                if attempt + 1 == _ATTEMPTS or isinstance(error, FileNotFoundError):
                    raise StorageError(
                        f"cannot be read beyond byte {self._place} ({type(error).__name__})",
                        where=self._prefix.uri(self._path),
                        fix=_REACH,
                    ) from error
                time.sleep(0.2 * 2**attempt)
                continue
            buffer[: len(data)] = data
            self._place += len(data)
            count(read_bytes=len(data))
            return len(data)
        raise AssertionError("every attempt returns or raises")

    def readall(self) -> bytes:
        chunks = []
        while left := self._end - self._place:
            chunks.append(self.read(min(left, PART_BYTES)))
        return b"".join(chunks)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None

    def close(self) -> None:
        self._drop()
        super().close()
