"""Calls to a server of objects are made again after errors that pass; the other errors say whose they are."""

import json
import random
import time
from collections.abc import Callable
from typing import TypeVar

from crops_jax.errors import InputError, NamedFailure, is_full_disk, one_line

T = TypeVar("T")

WAITS = [0.5, 2.0, 8.0, 30.0]
"""The seconds before the second, third, ... attempt of a call, each multiplied by a random number from 0.5 to 1.5."""
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

_TLS_SETTINGS = ("certificate verify failed", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
"""Words of OpenSSL about a certificate that is not known, or, by its version, about a server that has no TLS."""


def attempt(url: str, call: Callable[[], T]) -> T:
    """Makes a call until it returns, at most len(WAITS) + 1 times, and returns its result.

    Args:
      url: the path that the call is about, for messages.
      call: calls s3fs or gcsfs.

    Raises InputError when the user can help, NamedFailure when the server or the connection fails again and again,
    FileExistsError when the object does not meet a condition or a range, and errors of the local disk as they are.
    """
    scheme = url.partition("://")[0]
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
                raise FileExistsError(url) from error
            if status in (401, 403) or _lacks_credentials(error):
                raise InputError(
                    f"{url}: access is refused ({one_line(error)}); {_CREDENTIALS[scheme]}, and check "
                    "the permissions of the bucket"
                ) from error
            is_refused = status is not None and 300 <= status < 500 and status not in _PASSING
            if is_refused or (status is None and _is_setting(error)):
                raise InputError(
                    f"{url}: this cannot be asked for, or the server refuses it ({one_line(error)}); check "
                    f"the path and {_SETTINGS[scheme]}"
                ) from error
            if (attempts := _attempts_of_client(scheme, error)) > 1 or wait is None:
                raise NamedFailure(
                    f"{url}: {max(attempts, len(WAITS) + 1)} attempts failed ({one_line(error)}); call the "
                    "same command again"
                ) from error
        time.sleep(wait * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt returns or raises")


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
    if any(words in str(error) for words in _TLS_SETTINGS) or isinstance(cause, FileNotFoundError):
        return True
    if "BotoCoreError" in kinds:
        return not kinds & _PASSING_ERRORS
    return isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError | UnicodeError)
