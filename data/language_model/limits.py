"""How fast and for how much the endpoint may be asked: requests a minute, tokens, money, and waiting after failures."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

_MILLION = 1_000_000


class Clock(NamedTuple):
    """Where time comes from; tests give another one."""

    now: Callable[[], float] = time.monotonic
    """Seconds."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Rate:
    """At most so many requests a minute, evenly spaced; everybody waits when the endpoint asks for a pause."""

    def __init__(self, requests_per_minute: float | None, clock: Clock):
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next = self._held = clock.now()

    def hold(self, seconds: float) -> None:
        """No request starts within this time from now."""
        self._held = max(self._held, self._clock.now() + seconds)

    def take(self) -> float:
        """Takes the next place, and says in how many seconds it comes."""
        now = self._clock.now()
        start = max(now, self._next, self._held)
        self._next = start + self._spacing
        return start - now

    @property
    def held_seconds(self) -> float:
        """How much of a pause is left."""
        return max(0.0, self._held - self._clock.now())


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter: the k-th wait is drawn from [1/2, 1] of min(first 2^(k-1), longest)."""

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    jitter: random.Random = field(default_factory=random.Random)

    def seconds(self, failures: int, *, retry_after: float | None = None) -> float:
        """The wait after so many failures in a row, never shorter than what the endpoint asked for."""
        full = min(self.first_seconds * 2.0 ** min(failures - 1, 60), self.longest_seconds)
        return max(full * self.jitter.uniform(0.5, 1.0), retry_after or 0.0)


class Budget:
    """Tokens and money, all calls of the program on this output together.

    Before a request is sent, the most that it may cost is set aside, so that requests under way together cannot pass
    the limit: the prompt's bytes (a token is a byte or more) and the most tokens an answer may have.
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
          prompt_price, completion_price: money for a million tokens.
          max_spend: money. max_total_tokens: of prompts and answers together.
          prompt_tokens, completion_tokens: paid for before.
        """
        self._prices = (prompt_price, completion_price)
        self._max_spend, self._max_tokens = max_spend, max_total_tokens
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens
        self._reserved = [0, 0]
        self._under_way = 0
        self._changed = asyncio.Condition()
        self.exhausted: str | None = None
        """The limit that was reached: max_spend or max_total_tokens."""

    @property
    def spend(self) -> float:
        """Money, in the unit of the prices."""
        return self._cost(self.prompt_tokens, self.completion_tokens)

    async def reserve(self, prompt_bytes: int, max_tokens: int) -> bool:
        """Sets aside what a request may cost; False when the limit does not allow it and nothing is under way."""
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
        """Gives back what was set aside and books what was used: tokens of prompt and answer."""
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
