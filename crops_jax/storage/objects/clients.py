"""The file systems of s3fs and gcsfs, and how each of them reads a range of one version of an object."""

import datetime
import email.utils
import functools
import json
import logging
import time
from http import HTTPStatus
from typing import Any

from crops_jax.errors import InputError, one_line

_CONNECT_SECONDS, _SILENCE_SECONDS = 10, 60
"""The times after which a server that cannot be reached, or that sends nothing, is given up."""
_CONNECTIONS = 256
"""The maximum number of requests to a server of S3 at the same time; botocore has 10 unless it is told otherwise."""
_SIGNED_SECONDS = 300
"""How long a signed URL of S3 is used before the next one is made. It is valid for an hour."""
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}


@functools.cache
def file_system_of(scheme: str) -> Any:
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


def read_range(scheme: str, file_system: Any, path: str, wanted: str, version: str) -> tuple[bytes, str]:
    """Returns a range of an object, and the Content-Range of the answer ("" if it has none).

    Args:
      scheme: gs or s3.
      file_system: the file system of this scheme.
      path: BUCKET/NAME.
      wanted: the range, as the header Range takes it.
      version: the generation or ETag that the object must have; "" for any.
    """
    read = _s3_range if scheme == "s3" else _gs_range
    return read(file_system, path, wanted, version)


def age_seconds(scheme: str, file_system: Any, path: str) -> float:
    """Returns the seconds since an object was written, by the clock of the server alone.

    One answer has both times, so that a clock of this machine that is wrong or jumps does not matter.

    Args:
      scheme: gs or s3.
      file_system: the file system of this scheme.
      path: BUCKET/NAME.
    """
    from fsspec.asyn import sync

    bucket, key, _ = file_system.split_path(path)
    if scheme == "s3":
        found: Any = sync(file_system.loop, file_system._call_s3, "head_object", Bucket=bucket, Key=key)
        written, date = found["LastModified"].timestamp(), found["ResponseMetadata"]["HTTPHeaders"]["date"]
    else:
        headers, data = file_system.call("GET", "b/{}/o/{}", bucket, key)
        written = datetime.datetime.fromisoformat(json.loads(data)["updated"]).timestamp()
        date = headers["Date"]
    return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - written)


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
