"""Writes knowledge-level documents: a language model writes documents that answer the queries of the log.

The documents become the table knowledge_documents, which the knowledge level of data.mine reads (CroPS, arXiv
2511.15443, P3). They are used to train the encoder and are never in the index.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.errors import InputError
from crops_jax.program.progress import ProgressLine, say
from data.backends.connection import arrow_batches
from data.language_model.accepted_documents import Dropped, valid_document, written_documents
from data.language_model.answer_cache import Answer, AnswerCache
from data.language_model.arguments import WAYS, SynthesizeArguments, check_arguments
from data.language_model.asked_queries import asked_queries
from data.language_model.asking import Asker, Question, Tally
from data.language_model.endpoint import Endpoint
from data.language_model.extra import check_installed
from data.language_model.filters import EchoDetector, NearDuplicates
from data.language_model.limits import Budget, Clock, Rate
from data.language_model.prompt import Prompt, Request, load_prompt
from data.mining.relevance.theta import FOLDER, Theta, open_theta, reads_past
from data.perspectives.log_events import parse_time
from data.tables import LogTables, open_logs, write_table
from data.tables.quarantine import beside

ANSWERS = "answers.jsonl"
"""The file in the output that holds every paid answer, one on each line."""
_PROGRAM = "data.synthesize"
TABLE = "knowledge_documents"
_QUERIES_PER_BATCH = 1000


def synthesize(arguments: SynthesizeArguments, *, clock: Clock | None = None) -> dict[str, Any]:
    """Requests documents for the queries of a log from a language model; a further call continues the work.

    Every answer is written to OUTPUT/answers.jsonl when it arrives, so that no answer is paid for twice. If a limit of
    tokens or money is reached, the table of the documents received so far is written, and the outcome names the limit.
    """
    check_arguments(arguments)
    check_installed()
    prompt = load_prompt(arguments.prompt)
    logs = open_logs(arguments.logs, on_bad_rows=arguments.on_bad_rows, quarantine=beside(arguments.output))
    theta, folder = _theta(arguments, logs)
    output = Path(arguments.output)
    manifest = _manifest(arguments, prompt, folder)
    _open_output(output, arguments, manifest)
    plan = _Plan(arguments, logs, prompt)
    with AnswerCache(output / ANSWERS) as cache:
        questions = plan.count_questions(cache)
        budget = _budget(arguments, cache)
        tally, response_format = Tally(), None
        if questions:
            requests = _ask(arguments, plan, cache, budget, questions, clock or Clock())
            tally, response_format = asyncio.run(requests)
        dropped = Dropped()
        table = written_documents(
            plan.answered(cache),
            model=arguments.model,
            echoes=EchoDetector(prompt, duplicate_similarity=arguments.duplicate_similarity),
            discriminator=None if theta is None else theta.discriminator,
            alpha=arguments.alpha,
            duplicates=NearDuplicates(similarity=arguments.duplicate_similarity),
            with_related_queries=arguments.with_related_queries,
            dropped=dropped,
        )
    counts = {
        "queries": plan.queries,
        "requests": plan.requests,
        "written": len(table),
        **dataclasses.asdict(dropped),
        "prompt_tokens": budget.prompt_tokens,
        "completion_tokens": budget.completion_tokens,
    }
    _finish(output, table, manifest, counts)
    _print_notes(counts, tally, theta)
    return {
        "documents": arguments.output,
        **counts,
        "cached": plan.requests - questions,
        **dataclasses.asdict(tally),
        "spend": round(budget.spend, 6),
        "response_format": response_format,
        "discriminator": None if theta is None else {"from": _discriminator_name(folder, logs), **theta.fitted},
        **logs.outcome,
    }


class _Plan:
    """The requests of these arguments, always in the same order: the most searched queries come first."""

    def __init__(self, arguments: SynthesizeArguments, logs: LogTables, prompt: Prompt):
        self._arguments, self._prompt = arguments, prompt
        self._connection = logs.connect(memory_limit=arguments.memory_limit)
        until = None if arguments.until is None else parse_time(arguments.until, argument="--until")
        self._table = asked_queries(
            self._connection,
            logs,
            until=until,
            long_watch_seconds=arguments.long_watch_seconds,
            with_example_only=prompt.shows_example and not arguments.zero_shot,
            max_queries=arguments.max_queries,
        )
        self.queries = int(self._table.count().to_pyarrow().as_py())
        self.requests = self.queries * arguments.documents_per_query
        if not self.queries:
            raise InputError(
                f"{logs.path} has no query to request documents for: none has a known relevant document (a click, "
                "like, long watch, or judgement of split train) in the part that is read; add --zero-shot for requests "
                "without examples"
            )

    def count_questions(self, cache: AnswerCache) -> int:
        """Returns the number of requests that have no valid answer yet and can be sent."""
        return sum(1 for _ in self.questions(cache))

    def questions(self, cache: AnswerCache) -> Generator[Question, None, None]:
        for request, key in self._keyed():
            if cache.count(key) < self._arguments.max_answers and valid_document(cache.answers(key)) is None:
                yield Question(key, request.messages)

    def answered(self, cache: AnswerCache) -> Iterator[tuple[Request, str, list[Answer]]]:
        bar = ProgressLine(self._keyed(), total=self.requests, desc="reading answers", unit="answers")
        for request, key in bar:
            yield request, key, cache.answers(key)

    def _keyed(self) -> Iterator[tuple[Request, str]]:
        arguments = self._arguments
        sampling = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}
        documents = arguments.documents_per_query
        for batch in arrow_batches(self._connection, self._table, rows=_QUERIES_PER_BATCH):
            for row in batch.to_pylist():
                example = None if row["example_id"] is None else row
                for number in range(1, documents + 1):
                    request = self._prompt.render(row["query"], example, number=number, documents=documents)
                    yield request, request.key(arguments.model, sampling)


async def _ask(
    arguments: SynthesizeArguments, plan: _Plan, cache: AnswerCache, budget: Budget, total: int, clock: Clock
) -> tuple[Tally, str]:
    endpoint = Endpoint(
        arguments.base_url,
        model=arguments.model,
        key_variable=arguments.api_key_variable,
        timeout_seconds=arguments.timeout_seconds,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
    )
    asker = Asker(
        endpoint=endpoint,
        cache=cache,
        budget=budget,
        rate=Rate(arguments.requests_per_minute, clock),
        clock=clock,
        concurrency=min(arguments.concurrency, total),
        max_retries=arguments.max_retries,
        max_wait_seconds=arguments.max_wait_seconds,
        max_answers=arguments.max_answers,
        max_tokens=arguments.max_tokens,
    )
    try:
        with contextlib.closing(plan.questions(cache)) as questions:
            return await asker.ask(questions, total=total), endpoint.response_format
    finally:
        await endpoint.close()


def _budget(arguments: SynthesizeArguments, cache: AnswerCache) -> Budget:
    return Budget(
        prompt_price=arguments.prompt_price,
        completion_price=arguments.completion_price,
        max_spend=arguments.max_spend,
        max_total_tokens=arguments.max_total_tokens,
        prompt_tokens=cache.prompt_tokens,
        completion_tokens=cache.completion_tokens,
    )


def _theta(arguments: SynthesizeArguments, logs: LogTables) -> tuple[Theta | None, Path | None]:
    default = logs.path / FOLDER
    folder = Path(arguments.discriminator) if arguments.discriminator else default if default.is_dir() else None
    if folder is None:
        return None, None
    theta = open_theta(folder)
    until = None if arguments.until is None else parse_time(arguments.until, argument="--until")
    if reads_past(theta, until):
        raise InputError(
            f"{folder} was fitted on searches up to {theta.fitted['latest_time']}, not before --until "
            f"{arguments.until}; use --discriminator to name one that was fitted on earlier searches"
        )
    return theta, folder


def _discriminator_name(folder: Path | None, logs: LogTables) -> str:
    return f"LOGS/{FOLDER}" if folder == logs.path / FOLDER else "--discriminator"


def _manifest(arguments: SynthesizeArguments, prompt: Prompt, folder: Path | None) -> dict[str, Any]:
    identifying = {name: value for name, value in dataclasses.asdict(arguments).items() if name not in WAYS}
    manifest = artifacts.new_manifest(
        program=_PROGRAM,
        kind=TABLE,
        arguments=identifying,
        inputs={"logs": arguments.logs, "discriminator": folder},
        prompt=prompt.text,
    )
    return {**manifest, "identity": manifest["fingerprint"]}


def _open_output(output: Path, arguments: SynthesizeArguments, manifest: dict[str, Any]) -> None:
    """Creates the directory or opens the one of an earlier call. Raises InputError if it belongs to another output.

    With --overwrite, a directory of other inputs is used again: its table is removed, and its answers are kept.
    """
    if not (output / artifacts.MANIFEST).is_file():
        inputs = {"logs": arguments.logs, "discriminator": arguments.discriminator}
        in_place.begin(output, manifest, overwrite=arguments.overwrite, inputs=inputs)
        return
    in_place.check_written_by(output, program=_PROGRAM, kind=TABLE, noun="an output")
    if arguments.overwrite and not in_place.is_same(artifacts.read_manifest(output), manifest):
        (output / f"{TABLE}.parquet").unlink(missing_ok=True)
        artifacts.write_manifest(output, manifest)
    in_place.check_same(
        output,
        manifest,
        remedy="add --overwrite to continue with these arguments (paid answers are kept), or choose another output",
    )


def _finish(output: Path, table: pa.Table, manifest: dict[str, Any], counts: dict[str, int]) -> None:
    """Writes the table and the manifest; readers see either the old or the new table."""
    content = artifacts.content_fingerprint(write_table(output, TABLE, table))
    artifacts.write_manifest(output, {**manifest, "fingerprint": content, "synthesized": counts})


def _print_notes(counts: dict[str, int], tally: Tally, theta: Theta | None) -> None:
    if theta is None:
        say("no relevance discriminator (theta) was named, and the logs hold none: documents were not filtered by it")
    if tally.stopped_by:
        limit = tally.stopped_by.replace("_", "-")
        say(f"--{limit} is reached; {counts['left']} requests remain; raise the limit to send them")
    elif counts["left"]:
        say(f"{counts['left']} requests have no valid answer; call the same command again to repeat them")


if __name__ == "__main__":
    program.run(
        synthesize,
        example="python -m data.synthesize --logs split --output knowledge --base-url http://localhost:8000/v1 "
        "--model Qwen/Qwen2.5-14B-Instruct",
        then=("data.mine --logs {logs} --knowledge-documents {output} --output LABELS",),
        device=True,
    )
