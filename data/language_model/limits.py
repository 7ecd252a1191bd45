"""The limits of requests to the endpoint: requests per minute, tokens and money."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

_MILLION = 1_000_000


class Clock(NamedTuple):
    """The source of time; tests use another one."""

    now: Callable[[], float] = time.monotonic
    """Returns the time in seconds."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Rate:
    """A limit of requests per minute, evenly spaced; all requests wait if the endpoint requests a pause."""

    def __init__(self, requests_per_minute: float | None, clock: Clock):
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next = self._held = clock.now()

    def hold(self, seconds: float) -> None:
        """Starts a pause: no request begins within this time from now."""
        self._held = max(self._held, self._clock.now() + seconds)

    def take(self) -> float:
        """Reserves the next start of a request, and returns the seconds until then."""
        now = self._clock.now()
        start = max(now, self._next, self._held)
        self._next = start + self._spacing
        return start - now

    @property
    def held_seconds(self) -> float:
        """The remaining seconds of a pause."""
        return max(0.0, self._held - self._clock.now())


class Budget:
    """The tokens and money of an output, over all calls of the program.

    Before a request is sent, its maximum cost is reserved, so that simultaneous requests together cannot exceed the
    limit. The maximum is the number of bytes of the prompt (a token has at least one byte) plus the maximum number of
    tokens of an answer.
    """

    def __init__(
        self,
        *,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
        max_spend: float | None = None,
        max_total_tokens: int | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ):
        """
        Args:
          prompt_price, completion_price: the prices of a million tokens.
          max_spend: the limit of money, in the unit of the prices; None for no limit.
          max_total_tokens: the limit of the tokens of prompts and answers together; None for no limit.
          prompt_tokens, completion_tokens: the tokens that earlier calls used.
        """
        self._prices = (prompt_price, completion_price)
        self._max_spend, self._max_tokens = max_spend, max_total_tokens
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens
        self._reserved = [0, 0]
        self._under_way = 0
        self._changed = asyncio.Condition()
        self.exhausted: str | None = None
        """The name of the limit that was reached, max_spend or max_total_tokens; None before that."""

    @property
    def spend(self) -> float:
        """The money spent, in the unit of the prices."""
        return self._cost(self.prompt_tokens, self.completion_tokens)

    async def reserve(self, prompt_bytes: int, max_tokens: int) -> bool:
        """Reserves the maximum cost of a request. Returns False if the limit does not allow it even without others."""
        async with self._changed:
            while self.exhausted is None and (limit := self._passed(prompt_bytes, max_tokens)):
                if not self._under_way:
                    self.exhausted = limit
                    self._changed.notify_all()
                    break
                await self._changed.wait()
            if self.exhausted is not None:
                return False
            self._under_way += 1
            self._reserved[0] += prompt_bytes
            self._reserved[1] += max_tokens
            return True

    async def settle(self, prompt_bytes: int, max_tokens: int, *, used: tuple[int, int] = (0, 0)) -> None:
        """Releases the reservation of a request and adds the used tokens of prompt and answer."""
        async with self._changed:
            self._under_way -= 1
            self._reserved[0] -= prompt_bytes
            self._reserved[1] -= max_tokens
            self.prompt_tokens += used[0]
            self.completion_tokens += used[1]
            self._changed.notify_all()

    def _passed(self, prompt_bytes: int, max_tokens: int) -> str | None:
        prompt = self.prompt_tokens + self._reserved[0] + prompt_bytes
        completion = self.completion_tokens + self._reserved[1] + max_tokens
        if self._max_spend is not None and self._cost(prompt, completion) > self._max_spend:
            return "max_spend"
        if self._max_tokens is not None and prompt + completion > self._max_tokens:
            return "max_total_tokens"
        return None

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self._prices[0] + completion_tokens * self._prices[1]) / _MILLION
