"""The arguments of data.synthesize."""

import dataclasses

from crops_jax.errors import InputError
from data.language_model.endpoint import check_url
from data.perspectives.log_events import LONG_WATCH_SECONDS
from data.tables import OnBadRows

WAYS = {
    "base_url",
    "api_key_variable",
    "concurrency",
    "requests_per_minute",
    "timeout_seconds",
    "max_retries",
    "max_wait_seconds",
    "prompt_price",
    "completion_price",
    "max_spend",
    "max_total_tokens",
    "memory_limit",
    "prompt",  # its text is in the manifest
}
"""Arguments that decide how and for how much the endpoint is asked, but not what is written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesizeArguments:
    logs: str
    """Directory of log tables."""
    output: str
    """Directory to write knowledge_documents.parquet into, and the answers as they come."""
    base_url: str
    """The OpenAI-compatible endpoint, such as http://localhost:8000/v1."""
    model: str
    """The model's name at the endpoint, such as Qwen/Qwen2.5-14B-Instruct."""
    overwrite: bool = False
    """Start from other arguments in an existing output. Answers that were paid for are kept, and used where model,
    prompt and sampling are the same."""
    api_key_variable: str | None = None
    """Name of the environment variable that holds the key. By default no key is sent."""
    prompt: str | None = None
    """A prompt file instead of data/language_model/one_shot_prompt.txt."""
    until: str | None = None
    """Read only searches before this time (exclusive, ISO 8601, UTC without an offset)."""
    documents_per_query: int = 1
    """Documents that are asked for, each in a request of its own."""
    max_queries: int | None = None
    """Only the most searched queries, so many."""
    zero_shot: bool = False
    """Also ask about queries for which no relevant document is known, without an example."""
    temperature: float | None = 0.7
    """Of the model's sampling; None leaves it to the endpoint."""
    max_tokens: int = 600
    """The longest answer."""
    max_answers: int = 2
    """Answers to one request while they are not valid."""
    discriminator: str | None = None
    """Folder of a discriminator. By default LOGS/discriminator; without one nothing is filtered."""
    alpha: float = 0.6
    """A document is kept when theta > alpha."""
    duplicate_similarity: float = 0.9
    """Cosine of character trigrams from which on two documents are the same."""
    with_related_queries: bool = False
    """Put the related queries into the document's text too; never the query itself."""
    long_watch_seconds: float = LONG_WATCH_SECONDS
    """A document watched at least this long is relevant, like a clicked one."""
    concurrency: int = 16
    """Requests under way at once."""
    requests_per_minute: float | None = None
    """At most so many requests, retries included."""
    timeout_seconds: float = 300.0
    """The longest wait for one answer."""
    max_retries: int = 6
    """Further attempts after a failure that may pass."""
    max_wait_seconds: float = 600.0
    """The longest wait that the endpoint may ask for with Retry-After."""
    prompt_price: float = 0.0
    """Money for a million tokens of prompt."""
    completion_price: float = 0.0
    """Money for a million tokens of answer."""
    max_spend: float | None = None
    """Money that this output may cost in all, over all calls."""
    max_total_tokens: int | None = None
    """Tokens that this output may use in all, over all calls."""
    on_bad_rows: OnBadRows = "fail"
    """quarantine: rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
    memory_limit: str | None = None
    """What DuckDB may hold in memory, such as 4GB; more is spilled to disk."""


def check_arguments(arguments: SynthesizeArguments) -> None:
    """Raises InputError where a value is out of range, or goes with another that is missing."""
    check_url(arguments.base_url)
    least = {
        "documents_per_query": 1,
        "max_queries": 1,
        "max_tokens": 1,
        "max_answers": 1,
        "concurrency": 1,
        "max_retries": 0,
        "temperature": 0,
        "prompt_price": 0,
        "completion_price": 0,
        "max_wait_seconds": 0,
        "max_total_tokens": 1,
    }
    for name, low in least.items():
        value = getattr(arguments, name)
        if value is not None and not value >= low:
            raise InputError(f"--{name.replace('_', '-')} {value} must be at least {low}")
    for name in ("requests_per_minute", "timeout_seconds", "max_spend", "long_watch_seconds"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value} must be greater than 0")
    for name in ("alpha", "duplicate_similarity"):
        if not 0 <= getattr(arguments, name) <= 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(arguments, name)} is not between 0 and 1")
    if not arguments.model.strip():
        raise InputError("--model is empty; name the model as the endpoint does")
    if arguments.max_spend is not None and not arguments.prompt_price + arguments.completion_price:
        raise InputError("--max-spend needs --prompt-price and --completion-price, money for a million tokens of each")
