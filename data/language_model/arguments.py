"""The arguments of data.synthesize."""

import dataclasses
from typing import ClassVar

from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath, LocalPath
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
"""The arguments of the requests and their costs. They do not decide which documents are written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesizeArguments:
    logs: InputPath
    """The directory of log tables."""
    output: LocalPath
    """The directory to write knowledge_documents.parquet and the answers into."""
    base_url: str
    """The OpenAI-compatible endpoint, such as http://localhost:8000/v1."""
    model: str
    """The name of the model at the endpoint, such as Qwen/Qwen2.5-14B-Instruct."""
    overwrite: bool = False
    """Use an existing output with other arguments. Paid answers are kept, and are used if model, prompt and sampling
    are the same."""
    api_key_variable: str | None = None
    """The name of the environment variable that holds the key. By default no key is sent."""
    prompt: InputPath | None = None
    """A prompt file. The default is data/language_model/one_shot_prompt.txt."""
    until: str | None = None
    """Read only searches before this time (exclusive, ISO 8601; UTC if it has no offset)."""
    documents_per_query: int = 1
    """The number of documents that are requested for each query, each in its own request."""
    max_queries: int | None = None
    """The maximum number of queries; the most searched are used."""
    zero_shot: bool = False
    """Also use queries without a known relevant document; their prompt has no example."""
    temperature: float | None = 0.7
    """The temperature of the model's sampling; None uses the default of the endpoint."""
    max_tokens: int = 600
    """The maximum number of tokens in an answer."""
    max_answers: int = 2
    """The maximum number of answers to one request; another one is requested only if the earlier ones are not valid."""
    discriminator: InputPath | None = None
    """The folder of a relevance discriminator (theta), which gives the probability that a document answers a query. The
    default is LOGS/discriminator; if that does not exist, no document is filtered."""
    alpha: float = 0.6
    """The threshold that the discriminator's probability must exceed: a document is kept if theta > alpha."""
    duplicate_similarity: float = 0.9
    """The minimum cosine of character trigrams at which two documents count as duplicates."""
    with_related_queries: bool = False
    """Add the related queries to the text of the document, but never the query itself."""
    long_watch_seconds: float = LONG_WATCH_SECONDS
    """The minimum watch time at which a document counts as relevant, like a clicked one."""
    concurrency: int = 16
    """The maximum number of requests at the same time."""
    requests_per_minute: float | None = None
    """The maximum number of requests per minute, including retries."""
    timeout_seconds: float = 300.0
    """The maximum time to wait for one answer."""
    max_retries: int = 6
    """The maximum number of further attempts after a temporary failure."""
    max_wait_seconds: float = 600.0
    """The maximum wait that the endpoint can request with Retry-After."""
    prompt_price: float = 0.0
    """The price of a million tokens of prompts."""
    completion_price: float = 0.0
    """The price of a million tokens of answers."""
    max_spend: float | None = None
    """The limit of the money that this output costs, over all calls."""
    max_total_tokens: int | None = None
    """The limit of the tokens that this output uses, over all calls."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
    memory_limit: str | None = None
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": (
            "logs",
            "until",
            "max_queries",
            "zero_shot",
            "documents_per_query",
            "long_watch_seconds",
            "on_bad_rows",
        ),
        "output": ("output", "overwrite"),
        "endpoint": ("base_url", "model", "api_key_variable", "prompt", "temperature", "max_tokens", "max_answers"),
        "filter": ("discriminator", "alpha", "duplicate_similarity", "with_related_queries"),
        "limit": (
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
        ),
    }


def check_arguments(arguments: SynthesizeArguments) -> None:
    """Raises InputError if a value is out of range, or if an argument needs another one that is missing."""
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
