"""Objects of a bucket behind gs:// or s3://: list, read whole or in part, write, create once, remove.

Every call is tried again with growing waits when the server or the connection fails. Credentials, buckets and objects
that are missing, and settings that the client cannot use, are errors of the user, which say what to do at once.
"""

import concurrent.futures
import contextlib
import functools
import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from crops_jax.errors import InputError, NamedFailure, is_full_disk, one_line

T = TypeVar("T")
Item = TypeVar("Item")

THREADS = 16
"""The maximum number of calls of `in_parallel` at the same time."""
WAITS = [0.5, 2.0, 8.0, 30.0]
"""The seconds before the second, third, ... attempt of a call, each multiplied by a random number from 0.5 to 1.5."""
_CONNECT_SECONDS, _SILENCE_SECONDS = 10, 60
"""The times after which a server that cannot be reached, or that sends nothing, is given up."""
_CONNECTIONS = 256
"""The maximum number of requests to a server of S3 at the same time; botocore has 10 unless it is told otherwise."""
_SIGNED_SECONDS = 300
"""How long a signed URL of S3 is used before the next one is made. It is valid for an hour."""
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
_CREDENTIALS = {
    "gs": "call `gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
}
_SETTINGS = {
    "gs": "the settings of the client (GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST, SSL_CERT_FILE)",
    "s3": "the settings of the client (AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_CA_BUNDLE, ~/.aws/config)",
}
_PASSING = {408, 409, 425, 429}
"""The statuses of the client's errors that another attempt can mend."""
_NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "DefaultCredentialsError"),
}


_PASSING_ERRORS = {
    *("HTTPClientError", "ConnectionError", "IncompleteReadError", "ChecksumError", "FlexibleChecksumError"),
    *("AwsChunkedWrapperError", "CapacityNotAvailableError", "MetadataRetrievalError"),
}
"""The errors of botocore without an answer that another attempt can mend. The other ones are about settings."""


class Entry(NamedTuple):
    """One object below a path."""

    size: int
    """The number of bytes."""
    version: str
    """A text that changes when the object is written again with other bytes: its generation or ETag."""


def in_parallel(act: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
    """Calls a function for each item, in threads, and returns the results in the order of the items.

    All calls are made. Then the error of the first item that has one is raised. When a signal interrupts the wait, no
    further call is made, and those that run do not hold the end of the program up, as threads of an executor would.
    """
    calls = [(item, concurrent.futures.Future[T]()) for item in items]
    waiting: queue.SimpleQueue[tuple[Item, concurrent.futures.Future[T]]] = queue.SimpleQueue()
    for call in calls:
        waiting.put(call)
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                item, result = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                result.set_result(act(item))
            except BaseException as error:
                result.set_exception(error)

    for _ in range(min(THREADS, len(calls))):
        threading.Thread(target=work, daemon=True).start()
    try:
        concurrent.futures.wait([result for _, result in calls])
    finally:
        stopped.set()
    return [result.result() for _, result in calls]


class ObjectStore:
    """The objects at and below one path in a bucket. Names of objects are relative to the path; "" is the path itself.

    Every method raises InputError when the user can help (credentials, bucket), FileNotFoundError when there is no such
    object, and NamedFailure when the server fails again and again.
    """

    def __init__(self, url: str):
        """Opens a path.

        Args:
          url: gs://BUCKET/PATH or s3://BUCKET/PATH.
        """
        self.url = url.rstrip("/")
        self.scheme, _, self._path = self.url.partition("://")
        self._file_system = self._attempt(lambda: _open(self.scheme))

    def listing(self) -> dict[str, Entry]:
        """Returns the objects at and below the path by their names, in the order of the names.

        Raises InputError when the bucket does not exist.
        """
        found = self._attempt(self._find)
        if not found:
            self._check_bucket()
        entries = {}
        for path, info in sorted(found.items()):
            version = info.get("generation") or info.get("ETag") or info.get("etag") or ""
            entries[path[len(self._path) :].removeprefix("/")] = Entry(int(info["size"]), str(version).strip('"'))
        return entries

    def names_here(self) -> list[str]:
        """Returns the names of the objects directly below the path."""

        def find() -> list[str]:
            with contextlib.suppress(FileNotFoundError):
                return self._file_system.ls(self._path, detail=False)
            return []

        return [path.rpartition("/")[2] for path in self._attempt(find)]

    def read(self, name: str) -> bytes:
        """Returns the bytes of an object."""
        return self._attempt(lambda: self._file_system.cat_file(self._full(name)))

    def read_range(self, name: str, start: int, end: int, *, listed: Entry) -> bytes:
        """Returns bytes `start` to `end` - 1 of an object; an answer that is cut short is asked for again.

        Args:
          name: the object.
          start: the first byte.
          end: the byte after the last one.
          listed: the object as a listing had it.

        Raises FileNotFoundError when the object is gone, or has another version or size than `listed`.
        """

        def get() -> bytes:
            read = _s3_range if self.scheme == "s3" else _gs_range
            data, answered = read(self._file_system, self._full(name), f"bytes={start}-{end - 1}", listed.version)
            size = answered.rpartition("/")[2]
            if size != str(listed.size) and size.isdigit():
                raise FileNotFoundError(f"{size} bytes instead of {listed.size}")
            if len(data) != end - start or not answered:
                raise OSError(f"{len(data)} bytes arrived instead of the {end - start} that were asked for")
            return data

        try:
            return self._attempt(get)
        except FileExistsError as error:
            raise FileNotFoundError(f"{self.url}/{name} is another version") from error

    def download(self, name: str, file: Path, *, size: int) -> None:
        """Writes an object to a file whose folder exists; an answer that is cut short is asked for again.

        Args:
          name: the object.
          file: the file to write.
          size: the number of bytes that the object has.
        """

        def get() -> None:
            self._file_system.get_file(self._full(name), str(file))
            if (found := file.stat().st_size) != size:
                raise OSError(f"{found} of {size} bytes arrived")

        self._attempt(get)

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, whatever was there."""
        self._attempt(lambda: self._file_system.pipe_file(self._full(name), data))

    def upload(self, name: str, file: Path, *, replaces: bool = True) -> None:
        """Writes a file as an object.

        Args:
          name: the object.
          file: the local file.
          replaces: whether an object that is there is replaced. If not (a conditional put), FileExistsError is raised
            when there is one with other bytes. One with these very bytes counts as written by this call.
        """
        mode = "overwrite" if replaces else "create"
        try:
            self._attempt(lambda: self._file_system.put_file(str(file), self._full(name), mode=mode))
        except FileExistsError:
            if self.read(name) != file.read_bytes():
                raise

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object unless there is one (a conditional put), and returns whether it is there with these bytes.

        An object with these very bytes counts as written by this call, because an answer can be lost.
        """
        try:
            self._attempt(lambda: self._file_system.pipe_file(self._full(name), data, mode="create"))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                return self.read(name) == data
            return False
        return True

    def written(self, name: str) -> float:
        """Returns the time when an object was written, in seconds since 1970 by the clock of the server."""
        return self._attempt(lambda: self._file_system.modified(self._full(name))).timestamp()

    def age_seconds(self, name: str) -> float:
        """Returns the seconds since an object was written, by the clocks of the server and of this machine."""
        return time.time() - self.written(name)

    def remove(self, names: list[str]) -> None:
        """Removes objects; those that do not exist are left out."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._attempt(lambda name=name: self._file_system.rm_file(self._full(name)))

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _find(self) -> dict[str, Any]:
        try:
            found = self._file_system.find(self._path, detail=True)
        except FileNotFoundError:
            return {}
        # Consoles mark folders by empty objects whose names end with a slash.
        return {path: info for path, info in found.items() if info["type"] == "file" and not path.endswith("/")}

    def _check_bucket(self) -> None:
        bucket = self._path.partition("/")[0]
        try:
            with contextlib.suppress(InputError):  # the user can have access to the path alone
                self._attempt(lambda: self._file_system.ls(bucket))
        except FileNotFoundError as error:
            raise InputError(
                f"{self.url}: there is no bucket {bucket}; check the name, or make the bucket first"
            ) from error

    def _attempt(self, call: Callable[[], T]) -> T:
        for wait in (*WAITS, None):
            try:
                return call()
            except (FileNotFoundError, FileExistsError, InputError):
                raise
            except Exception as error:
                if _is_of_this_disk(error):
                    raise
                status = _http_status(error)
                if status in (412, 416):  # a condition, or a range, that the object does not meet
                    raise FileExistsError(self.url) from error
                if status in (401, 403) or _lacks_credentials(error):
                    raise InputError(
                        f"{self.url}: access is refused ({one_line(error)}); {_CREDENTIALS[self.scheme]}, and check "
                        "the permissions of the bucket"
                    ) from error
                is_refused = status is not None and 300 <= status < 500 and status not in _PASSING
                if is_refused or (status is None and _is_setting(error)):
                    raise InputError(
                        f"{self.url}: this cannot be asked for, or the server refuses it ({one_line(error)}); check "
                        f"the path and {_SETTINGS[self.scheme]}"
                    ) from error
                if (attempts := _attempts_of_client(self.scheme, error)) > 1 or wait is None:
                    raise NamedFailure(
                        f"{self.url}: {max(attempts, len(WAITS) + 1)} attempts failed ({one_line(error)}); call the "
                        "same command again"
                    ) from error
            time.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError("the last attempt returns or raises")


@functools.cache
def _open(scheme: str) -> Any:
    """Returns the fsspec file system of a scheme. It keeps no listings.

    That of S3 leaves repeated attempts to the caller; gcsfs cannot be told to.
    """
    try:
        if scheme == "s3":
            import s3fs

            once: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "max_pool_connections": _CONNECTIONS}
            once |= {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _SILENCE_SECONDS}
            once |= {"signature_version": "s3v4"}  # also for signed URLs
            opened = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=once)
            opened.retries = 1
            return opened
        import aiohttp
        import gcsfs

        # gcsfs logs each error with its traceback, also one that another attempt mends.
        if (log := logging.getLogger("gcsfs")).level == logging.NOTSET:
            log.setLevel(logging.CRITICAL)
        # gcsfs waits for an answer without end unless it is told otherwise.
        times = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        return gcsfs.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True, requests_timeout=times)
    except ImportError as error:
        raise InputError(
            f"{scheme}:// needs the package {_PACKAGES[scheme]} ({one_line(error)}); install it: make storage, or "
            "pip install 'crops_jax[storage]'"
        ) from error


def _s3_range(file_system: Any, path: str, wanted: str, version: str) -> tuple[bytes, str]:
    """Returns a range of the version of an object that has this ETag, and the Content-Range of the answer.

    get_object of botocore describes, resolves and signs every request, which takes longer than the request itself. One
    signed URL serves all ranges of an object, and goes through the HTTP session of the client. get_object is called
    where such a URL is answered otherwise, because it raises the right errors and follows a bucket to its region.
    """
    from botocore.awsrequest import AWSPreparedRequest
    from fsspec.asyn import sync

    bucket, key, _ = file_system.split_path(path)
    url = _signed_url(file_system, path, int(time.monotonic() / _SIGNED_SECONDS))
    headers = {"Range": wanted} | ({"If-Match": f'"{version}"'} if version else {})
    condition = {"IfMatch": f'"{version}"'} if version else {}

    async def get() -> tuple[bytes, str]:
        client = await file_system.get_s3(bucket)
        request = AWSPreparedRequest("GET", url, headers, None, stream_output=False)
        answer = await client._endpoint.http_session.send(request)
        data = await answer.content
        if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
            return data, answer.headers.get("Content-Range", "")
        whole = await file_system._call_s3("get_object", Bucket=bucket, Key=key, Range=wanted, **condition)
        async with whole["Body"] as body:
            return await body.read(), whole.get("ContentRange", "")

    found: Any = sync(file_system.loop, get)  # its annotation says None
    return found


@functools.lru_cache(maxsize=4096)
def _signed_url(file_system: Any, path: str, period: int) -> str:
    """Returns a URL that reads an object and is signed anew in each period of _SIGNED_SECONDS.

    Credentials that expire are renewed at least ten minutes before, so that a URL does not outlive them.
    """
    return file_system.url(path, expires=3600)


def _gs_range(file_system: Any, path: str, wanted: str, version: str) -> tuple[bytes, str]:
    """Returns a range of the version of an object that has this generation, and the Content-Range of the answer."""
    url = file_system.url(path, generation=version or None)
    headers, data = file_system.call("GET", url, headers={"Range": wanted})
    return data, headers.get("Content-Range", "")


def _http_status(error: BaseException) -> int | None:
    """Returns the status of the answer that an error of s3fs or gcsfs is about; None when there was no answer."""
    for one in (error, error.__cause__):
        answer = getattr(one, "response", None)  # of botocore
        if isinstance(answer, dict):
            return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        # gcsfs. The errors of aiohttp have codes too, which are not those of an answer.
        if type(one).__name__ == "HttpError" and str(code := getattr(one, "code", "")).isdigit():
            return int(str(code))
    return 403 if str(error).startswith("Forbidden") else None


def _attempts_of_client(scheme: str, error: BaseException) -> int:
    """Returns the number of attempts that the client has made before it raised an error."""
    if scheme != "gs":
        return 1
    import gcsfs
    from gcsfs.retry import is_retriable

    return gcsfs.GCSFileSystem.retries if is_retriable(error) else 1


def _is_of_this_disk(error: BaseException) -> bool:
    """Returns whether an error is about a local file and not about the server."""
    return isinstance(error, OSError) and (error.filename is not None or is_full_disk(error))


def _lacks_credentials(error: BaseException) -> bool:
    # google.auth says so of a login that has run out.
    has_run_out = type(error).__name__ == "RefreshError" and getattr(error, "retryable", None) is False
    return isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS or has_run_out


def _is_setting(error: BaseException) -> bool:
    """Returns whether an error without an answer of the server is about a setting or a name that cannot be sent."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    cause = getattr(error, "kwargs", {}).get("error")  # of botocore
    if "certificate verify failed" in str(error) or isinstance(cause, FileNotFoundError):
        return True
    if "BotoCoreError" in kinds:
        return not kinds & _PASSING_ERRORS
    return isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError | UnicodeError)
