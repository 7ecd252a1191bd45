"""Sends many requests at the same time, with limited concurrency, retries and limits; a stop loses no paid answer."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.program.progress import ProgressLine
from data.language_model.answer_cache import Answer, AnswerCache
from data.language_model.document_schema import InvalidAnswer, parse_answer
from data.language_model.endpoint import Endpoint, OutOfQuota, Refused, Transient
from data.language_model.extra import require
from data.language_model.limits import Budget, Clock, Rate

# Open requests at a stop have been paid for, so their answers are awaited; but a preempted machine waits only 30 s.
_GRACE_SECONDS = 10.0
_IN_A_ROW = 10


class Question(NamedTuple):
    """A request without a valid answer so far."""

    key: str
    messages: tuple[tuple[str, str], ...]

    @property
    def prompt_bytes(self) -> int:
        return sum(len(content.encode("utf-8", "replace")) for _, content in self.messages)


@dataclass
class Tally:
    """The counts of this call."""

    answered: int = 0
    """Answers that arrived, valid or not."""
    retries: int = 0
    rate_limited: int = 0
    refused: int = 0
    """Requests that the endpoint refused."""
    failed: int = 0
    """Requests that failed in all attempts while the endpoint was up."""
    stopped_by: str | None = None


@dataclass(kw_only=True)
class Asker:
    """The sender of requests to an endpoint; see `ask`."""

    endpoint: Endpoint
    cache: AnswerCache
    budget: Budget
    rate: Rate
    clock: Clock
    concurrency: int
    max_retries: int
    max_wait_seconds: float
    max_answers: int
    """The maximum number of answers to one question; another one is requested only if the earlier ones are invalid."""
    max_tokens: int
    tally: Tally = field(default_factory=Tally)

    async def ask(self, questions: Iterable[Question], *, total: int) -> Tally:
        """Sends every question, `concurrency` at a time, and writes each answer to the cache when it arrives.

        Raises:
          Interrupted: SIGTERM arrived; open requests are awaited for at most ten seconds first.
          NamedFailure: the endpoint is down, or the quota is used up.
          InputError: the endpoint refuses every request.
        """
        self._stop = asyncio.Event()
        self._terminated = False
        self._in_a_row = 0
        waiting = iter(questions)
        with _on_sigterm(self._terminate), ProgressLine(total=total, desc="asking", unit="requests") as bar:
            workers = [asyncio.create_task(self._work(waiting, bar)) for _ in range(self.concurrency)]
            stop: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
            gathered: asyncio.Future[Any] = asyncio.gather(*workers)
            try:
                await asyncio.wait({gathered, stop}, return_when=asyncio.FIRST_COMPLETED)
                self._stop.set()
                await asyncio.wait(workers, timeout=_GRACE_SECONDS)
            finally:
                for task in [*workers, stop]:
                    task.cancel()
                results = await asyncio.gather(*workers, stop, gathered, return_exceptions=True)
        if self._terminated:
            raise Interrupted(f"terminated; the answers so far are kept in {self.cache.file}; call the same again")
        for result in results:
            if isinstance(result, Exception):
                raise result
        self.tally.stopped_by = self.budget.exhausted
        return self.tally

    def _terminate(self) -> None:
        self._terminated = True
        self._stop.set()

    async def _work(self, waiting: Iterator[Question], bar: ProgressLine) -> None:
        for question in waiting:
            try:
                await self._answer(question)
            except _Stopped:
                return
            bar.update()

    async def _answer(self, question: Question) -> None:
        while self.cache.count(question.key) < self.max_answers:
            answer = await self._persist(question)
            if answer is None:
                return
            with contextlib.suppress(InvalidAnswer):
                parse_answer(answer.content)
                return

    async def _persist(self, question: Question) -> Answer | None:
        """Sends a question until an answer arrives; returns None if it is refused or fails in all attempts."""
        try:
            answer = await self._attempts()(self._ask_once, question)
        except Refused as error:
            self.tally.refused += 1
            self._count_in_a_row(InputError(f"the endpoint refuses every request, the last one with {error}"))
            return None
        except OutOfQuota as error:
            raise NamedFailure(f"the endpoint says that the quota is used up ({error}); {self._kept()}") from error
        except Transient as error:
            self.tally.rate_limited += error.rate_limited
            await self._give_up(error)
            return None
        self._in_a_row = 0
        self.tally.answered += 1
        return answer

    def _attempts(self) -> Any:
        """Returns the tenacity.AsyncRetrying of one question. Tasks cannot share one.

        The wait after failure k is random in [1/2, 1] times min(2^(k-1), 60) seconds, and at least as long as the
        endpoint requested.
        """
        tenacity = require("tenacity")
        fixed = tenacity.wait_exponential(multiplier=0.5, max=30)
        jitter = tenacity.wait_random_exponential(multiplier=0.5, max=30)
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Transient),
            stop=tenacity.stop_after_attempt(1 + self.max_retries),
            wait=lambda call: max(fixed(call) + jitter(call), call.outcome.exception().retry_after or 0.0),
            sleep=self._pause,
            before_sleep=lambda call: self._before_retry(call.outcome.exception()),
            reraise=True,
        )

    async def _ask_once(self, question: Question) -> Answer:
        await self._pause(self.rate.take())
        while self.rate.held_seconds:  # a pause can have begun while this request waited for its start
            await self._pause(self.rate.held_seconds)
        reserved = question.prompt_bytes, self.max_tokens
        if not await self.budget.reserve(*reserved):
            raise _Stopped
        used = 0, 0
        try:
            if self._stop.is_set():
                raise _Stopped
            answer = await self.endpoint.complete(question.messages)
            used = answer.prompt_tokens, answer.completion_tokens
            self.cache.add(question.key, answer)
            return answer
        finally:
            await self.budget.settle(*reserved, used=used)

    def _before_retry(self, error: Transient) -> None:
        self.tally.rate_limited += error.rate_limited
        self.tally.retries += 1
        if error.retry_after is None:
            return
        if error.retry_after > self.max_wait_seconds:
            raise NamedFailure(
                f"the endpoint asks to wait {error.retry_after:.0f} s, longer than --max-wait-seconds "
                f"{self.max_wait_seconds:g} ({error}); {self._kept()}"
            ) from error
        self.rate.hold(error.retry_after)

    async def _give_up(self, error: Transient) -> None:
        """Counts a request that fails while the endpoint is up. Raises NamedFailure if the endpoint is down."""
        down = NamedFailure(f"the endpoint is down: {1 + self.max_retries} attempts, the last: {error}; {self._kept()}")
        if error.rate_limited or not await self.endpoint.is_up():
            raise down from error
        self.tally.failed += 1
        self._count_in_a_row(down)

    def _count_in_a_row(self, error: Exception) -> None:
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            raise error

    def _kept(self) -> str:
        return f"the answers so far are kept in {self.cache.file}; call the same command again to go on"

    async def _pause(self, seconds: float) -> None:
        """Sleeps for some seconds. Raises _Stopped if the program receives a stop before or during that time."""
        if seconds > 0 and not self._stop.is_set():
            sleep, stop = (asyncio.ensure_future(c) for c in (self.clock.sleep(seconds), self._stop.wait()))
            try:
                await asyncio.wait({sleep, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleep.cancel()
                stop.cancel()
        if self._stop.is_set():
            raise _Stopped


class _Stopped(Exception):
    """The signal that no further request is sent."""


@contextlib.contextmanager
def _on_sigterm(action) -> Iterator[None]:
    """Calls `action` in the running loop on SIGTERM, instead of an exception at the current line of the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, previous = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, action)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, previous)
