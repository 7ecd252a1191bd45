"""Sends one request to an OpenAI-compatible endpoint through the official client: an answer or a kind of failure.

The retries of the client are not used: they are not counted, a stop does not end their waits, and they end at a
Retry-After of more than two minutes; see data.language_model.asking.
"""

import datetime
import email.utils
import json
import math
import os
import urllib.parse
from collections.abc import Sequence
from typing import Any

from crops_jax.errors import InputError, one_line
from data.language_model.answer_cache import Answer
from data.language_model.document_schema import json_schema
from data.language_model.extra import require

FORMATS: tuple[dict[str, Any] | None, ...] = (
    {"type": "json_schema", "json_schema": {"name": "document", "strict": True, "schema": json_schema()}},
    {"type": "json_object"},
    None,
)
"""The values of response_format, the strictest first; None is plain text."""
_TRANSIENT_STATUS = {408, 409, 425, 429}
_BYTES_PER_TOKEN = 4


class Transient(Exception):
    """The error for a temporary failure: another attempt can succeed."""

    def __init__(self, message: str, *, retry_after: float | None = None, rate_limited: bool = False):
        super().__init__(message)
        self.retry_after = retry_after
        """The wait in seconds that the endpoint requested; None if it requested none."""
        self.rate_limited = rate_limited


class Refused(Exception):
    """The error for a request that the endpoint refuses in every response_format."""


class OutOfQuota(Exception):
    """The error for an account without money; waiting does not help."""


class Endpoint:
    """A chat endpoint. It remembers the response_format and the name of the token limit that the endpoint accepts."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        key_variable: str | None,
        timeout_seconds: float,
        max_tokens: int,
        temperature: float | None,
    ):
        """
        Args:
          base_url: the URL, such as http://localhost:8000/v1.
          model: the name of the model at the endpoint.
          key_variable: the environment variable that holds the key; None sends no key.
          timeout_seconds: the maximum time to wait for one answer.
          max_tokens: the maximum number of tokens of one answer.
          temperature: the temperature of sampling; None uses the default of the endpoint.

        Raises:
          InputError: the URL is invalid, the variable is not set, or the client is not installed.
        """
        self._openai = require("openai")
        check_url(base_url)
        self._key = read_key(key_variable)
        self._key_variable = key_variable
        self._base_url, self._model = base_url, model
        self._max_tokens, self._temperature = max_tokens, temperature
        self._format = 0
        self._limit_name = "max_tokens"
        # Without an api_key here, the client would send OPENAI_API_KEY to the server at base_url.
        self._client = self._openai.AsyncOpenAI(
            base_url=base_url, api_key=self._key or "none", max_retries=0, timeout=timeout_seconds
        )

    async def close(self) -> None:
        await self._client.close()

    @property
    def response_format(self) -> str:
        """The response_format that the endpoint accepted: json_schema, json_object or text."""
        return (FORMATS[self._format] or {"type": "text"})["type"]

    async def complete(self, messages: Sequence[tuple[str, str]]) -> Answer:
        """Sends one request; if the endpoint refuses the response_format, sends it again with a looser one.

        Raises:
          Transient, Refused, OutOfQuota.
          InputError: the key is not accepted, or there is no such model or path.
        """
        for number in range(self._format, len(FORMATS)):
            try:
                answer = await self._ask(messages, FORMATS[number])
            except Refused:
                if number + 1 == len(FORMATS):
                    raise
                continue
            # The format is kept only after an answer: a refusal for another reason must not loosen later requests.
            self._format = max(self._format, number)
            return answer
        raise AssertionError("unreachable: the last format either answers or raises")

    async def is_up(self) -> bool:
        """Returns whether the endpoint answers: it returns any status below 500 to a request for its models."""
        try:
            await self._client.models.list()
        except self._openai.APIStatusError as error:
            return error.status_code < 500
        except self._openai.APIConnectionError:
            return False
        except (self._openai.OpenAIError, ValueError, TypeError, AttributeError):
            return True
        return True

    async def _ask(self, messages: Sequence[tuple[str, str]], response_format: dict[str, Any] | None) -> Answer:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            self._limit_name: self._max_tokens,
        }
        if self._temperature is not None:
            request["temperature"] = self._temperature
        if response_format is not None:
            request["response_format"] = response_format
        openai = self._openai
        try:
            completion = await self._client.chat.completions.create(**request)
        except openai.APIStatusError as error:
            if "max_completion_tokens" in str(error) and self._limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return await self._ask(messages, response_format)
            raise self._failure(error) from None
        except openai.APITimeoutError:
            raise Transient("no answer in time") from None
        except openai.APIConnectionError as error:
            raise Transient(self._without_key(f"{error} {error.__cause__ or ''}".strip())) from None
        except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise Transient(f"what came back is no completion ({type(error).__name__})") from None
        return self._answer(messages, completion)

    def _answer(self, messages: Sequence[tuple[str, str]], completion: Any) -> Answer:
        try:
            content = completion.choices[0].message.content or ""
            usage = getattr(completion, "usage", None)
        except (AttributeError, IndexError, TypeError):
            raise Transient("what came back is no completion: no choices in it") from None
        if not isinstance(content, str):
            raise Transient("what came back is no completion: its content is no text")
        content = self._without_key(content)
        prompt = getattr(usage, "prompt_tokens", None)
        written = getattr(usage, "completion_tokens", None)
        if not isinstance(prompt, int) or not isinstance(written, int):
            prompt, written = tokens_of("".join(text for _, text in messages)), tokens_of(content)
        return Answer(content, prompt, written)

    def _failure(self, error: Any) -> Exception:
        status = error.status_code
        message = self._without_key(f"status {status}: {one_line(error.message, limit=300)}")
        if error.code == "insufficient_quota":
            return OutOfQuota(message)
        if status in _TRANSIENT_STATUS or status >= 500:
            retry_after = retry_after_seconds(error.response.headers.get("retry-after"))
            return Transient(message, retry_after=retry_after, rate_limited=status == 429)
        if status in {401, 403}:
            named = f"the key in {self._key_variable}" if self._key_variable else "a request without a key"
            return InputError(f"{self._base_url} does not accept {named} ({message}); see --api-key-variable")
        if status in {404, 405}:
            return InputError(
                f"{self._base_url} has no model {self._model!r}, or no chat/completions below it ({message}); check "
                "--model and --base-url, which usually ends in /v1"
            )
        return Refused(message)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def check_url(base_url: str) -> None:
    """Raises InputError for an invalid URL, or for one that could carry a secret into manifests and logs."""
    try:
        parts = urllib.parse.urlsplit(base_url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in {"http", "https"} or not host:
        raise InputError("--base-url is not an http or https address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError("--base-url carries a user, a password or a query; keys belong in an environment variable, "
                         "named with --api-key-variable")  # fmt: skip


def read_key(variable: str | None) -> str | None:
    """Returns the key in an environment variable; None without a variable. Raises InputError if it is not set."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"--api-key-variable {variable}: no such environment variable is set; export it")
    return key


def retry_after_seconds(header: str | None) -> float | None:
    """Returns the Retry-After header (a number or an HTTP date) in seconds from now; None if it is neither."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            until = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=datetime.UTC)
        seconds = (until - datetime.datetime.now(datetime.UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def tokens_of(text: str) -> int:
    """Returns an estimate of the number of tokens of a text, for endpoints that do not report it."""
    return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN)
