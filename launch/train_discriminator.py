"""Trains and calibrates the relevance discriminator (theta), a cross-encoder.

Theta is the probability that a document answers a query. A second call with the same RUN continues from the last
checkpoint.
"""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

import dataclasses
import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import ibis

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.artifacts.lock import LOCK, exclusive
from crops_jax.config import CrossEncoderConfig, EncoderConfig, MeshConfig, OptimizerConfig, PairsConfig, TrainingConfig
from crops_jax.config.stored import CONFIG, write_config
from crops_jax.devices import processes
from crops_jax.discriminator import DESCRIPTION, LexicalDiscriminator
from crops_jax.discriminator.lexical_features import CorpusStatistics
from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.program.progress import say
from crops_jax.storage import InputPath, RunPath
from crops_jax.text import normalise_query, tokenizer
from crops_jax.text.wordpiece import learn_wordpiece
from data.backends.connection import Connection
from data.mining.parameters import MiningParameters
from data.mining.relevance.precision import warn_of_random_pairs
from data.mining.relevance.theta import FITTED, save_theta, theta_of
from data.mining.relevance.training_pairs import NothingToFit, published_before, texts_of, training_pairs
from data.perspectives.log_events import LONG_WATCH_SECONDS, parse_time, read_events
from data.tables import LogTables, OnBadRows, open_logs
from data.tables.quarantine import beside

if TYPE_CHECKING:
    from crops_jax.text.pair_tokens import TokenizedPairs

_PROGRAM, _KIND = "launch.train_discriminator", "discriminator"
_TOKENIZER = "tokenizer"
_MAX_LEXICAL_PAIRS = 60_000
# The default learning rates: with weights to start from (True), and from scratch (False).
_LEARNING_RATES = {True: 2e-5, False: 3e-4}
# Arguments that change the devices, the memory or the writing interval of a run, and never its result.
_FREE = {"mesh", "log_every_steps", "checkpoint_every_steps", "checkpoint_every_seconds", "memory_limit"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDiscriminatorArguments:
    logs: InputPath
    """The log tables; normally those of the training part that data.hold_out wrote."""
    output: RunPath
    """RUN, the directory of the run. When it is finished, it is the folder of the discriminator."""
    weights: InputPath = ""
    """The folder or the Hugging Face hub name of a BERT-family encoder or cross-encoder to start from. If it is empty,
    the model starts from random parameters, with the sizes below."""
    tokenizer: InputPath = ""
    """The folder of a Hugging Face tokenizer. The default is that of --weights, or else a WordPiece vocabulary that is
    learnt from the logs."""
    vocabulary_size: int = 30_000
    """The number of tokens of a vocabulary that is learnt."""
    layers: int = 6
    """The number of transformer layers."""
    width: int = 384
    """The width of the token states."""
    heads: int = 12
    """The number of attention heads."""
    feed_forward_width: int = 1536
    """The width of the feed-forward layers."""
    dropout: float = 0.1
    """The dropout rate."""
    max_tokens: int = 128
    """The maximum number of tokens of a query-document pair. If a pair is longer, the document is cut first."""
    max_pairs: int = 400_000
    """The maximum number of training pairs. If there are more, those with the smallest SHA-256 are used."""
    pairs_per_batch: int = 32
    """The number of pairs in a batch."""
    epochs: float = 2.0
    """The number of passes over the training pairs, if --steps is 0."""
    steps: int = 0
    """The number of optimiser steps. 0 means that --epochs decides."""
    learning_rate: float | None = None
    """The peak learning rate. The default is 2e-5 with --weights and 3e-4 without."""
    weight_decay: float = 0.01
    """The weight decay of AdamW."""
    warmup_fraction: float = 0.1
    """The share of the steps in which the learning rate rises from 0."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """The number type of activations."""
    until: str | None = None
    """Read only searches before this time (exclusive, ISO 8601; UTC if it has no offset)."""
    relevant_grade: float | None = None
    """The minimum grade of a relevant judgement. By default it is that which the source of the logs
    declares or, without one, the lowest grade above 0."""
    long_watch_seconds: float = LONG_WATCH_SECONDS
    """The minimum watch time in seconds of a consumed document."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
    seed: int = 0
    """The seed of all random numbers of the training."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    log_every_steps: int = 10
    """The interval of log lines, in steps."""
    checkpoint_every_steps: int = 0
    """The interval of checkpoints, in steps. 0: no checkpoint by the number of steps."""
    checkpoint_every_seconds: float = 600.0
    """The interval of checkpoints, in seconds. 0: no checkpoint by time."""
    memory_limit: str | None = None
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("logs", "until", "relevant_grade", "long_watch_seconds", "max_pairs", "on_bad_rows"),
        "output": ("output", "log_every_steps", "checkpoint_every_steps", "checkpoint_every_seconds"),
        "encoder": (
            "weights",
            "tokenizer",
            "vocabulary_size",
            "layers",
            "width",
            "heads",
            "feed_forward_width",
            "dropout",
            "max_tokens",
        ),
        "training": (
            "pairs_per_batch",
            "epochs",
            "steps",
            "learning_rate",
            "weight_decay",
            "warmup_fraction",
            "compute_dtype",
            "seed",
        ),
        "advanced": ("memory_limit",),
    }


def train_discriminator(arguments: TrainDiscriminatorArguments) -> dict[str, Any]:
    """Trains a cross-encoder as the relevance discriminator (theta), and calibrates it on held-out queries.

    The training pairs are the judgements of split train; a document is relevant from --relevant-grade on. Without
    judgements they are the documents that were clicked and those that were shown without a click; in a log that has
    only clicks, they are clicked documents and sampled ones. Documents drawn at random and documents of the feed are
    added as irrelevant ones. Judgements of split test are never read. A fifth of the queries, selected by hash, is held
    out: the temperature, the calibration error and the AUC are measured on it, and the AUC of the lexical discriminator
    for comparison. The temperature and the calibration error are those of the mixture of judged documents and documents
    of the feed that mining meets; random_pairs_passing is the share of random pairs that pass, by alpha.

    The program writes into RUN while it trains. SIGTERM saves a checkpoint and exits with status 3; the same command
    continues from the newest checkpoint.
    """
    from crops_jax.storage.remote import run as remote_run

    processes.refuse_several(_PROGRAM)
    config = _config(arguments)
    with remote_run.opened(arguments.output, processes.current(), program=_PROGRAM, kind=_KIND):
        return _train_or_answer(arguments, config)


def _train_or_answer(arguments: TrainDiscriminatorArguments, config: CrossEncoderConfig) -> dict[str, Any]:
    """Trains the run of the arguments, unless it is finished, and returns its outcome."""
    logs = open_logs(arguments.logs, on_bad_rows=arguments.on_bad_rows, quarantine=beside(arguments.output))
    until = None if arguments.until is None else parse_time(arguments.until, argument="--until")
    run = Path(arguments.output)
    is_new = _open_run(run, arguments, config)
    with exclusive(run / LOCK, refusal=f"another process trains in {run}; wait until it ends, or choose another"):
        if (run / FITTED).exists():
            say(f"{run} is finished")
        else:
            write_config(run / CONFIG, config)  # a continued run can have another mesh and other intervals
            try:
                _train(arguments, config, logs, until, run)
            except NothingToFit:
                # Other logs or another --until can have training pairs, so that OUTPUT must not stay claimed.
                if is_new:
                    in_place.remove(run)
                raise
        outcome = _outcome(run)
        _warn(outcome)
        return {**outcome, **logs.outcome}


def _config(arguments: TrainDiscriminatorArguments) -> CrossEncoderConfig:
    """Returns the resolved configuration. Raises InputError if arguments or weights cannot be used."""
    from_weights = bool(arguments.weights)
    sizes: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("layers", "width", "heads", "feed_forward_width")
    }
    if from_weights:
        from crops_jax.pretrained.folder import describe, locate

        sizes = dict(describe(locate(arguments.weights)).sizes)
    elif arguments.tokenizer:
        sizes["vocabulary_size"] = tokenizer.load(arguments.tokenizer).vocabulary_size
    else:
        sizes["vocabulary_size"] = arguments.vocabulary_size
    rate = _LEARNING_RATES[from_weights] if arguments.learning_rate is None else arguments.learning_rate
    try:
        return CrossEncoderConfig(
            encoder=EncoderConfig(
                **{"max_positions": max(512, arguments.max_tokens), **sizes},
                max_query_tokens=arguments.max_tokens,
                max_document_tokens=arguments.max_tokens,
                dropout=arguments.dropout,
                compute_dtype=arguments.compute_dtype,
                weights=arguments.weights,
            ),
            pairs=PairsConfig(
                pairs_per_batch=arguments.pairs_per_batch,
                max_tokens=arguments.max_tokens,
                max_pairs=arguments.max_pairs,
            ),
            optimizer=OptimizerConfig(
                learning_rate=rate,
                weight_decay=arguments.weight_decay,
                warmup_fraction=arguments.warmup_fraction,
            ),
            mesh=arguments.mesh,
            training=TrainingConfig(
                steps=arguments.steps,
                epochs=arguments.epochs,
                log_every_steps=arguments.log_every_steps,
                evaluate_every_steps=0,
                checkpoint_every_steps=arguments.checkpoint_every_steps,
                checkpoint_every_seconds=arguments.checkpoint_every_seconds,
                seed=arguments.seed,
            ),
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _open_run(run: Path, arguments: TrainDiscriminatorArguments, config: CrossEncoderConfig) -> bool:
    """Makes RUN atomically (True), or continues that of an earlier call (False).

    Raises InputError if RUN was made with other arguments or inputs.
    """
    from crops_jax.training.cross_encoder import check_machine

    check_machine(config)
    inputs: dict[str, Path | str | None] = {"logs": arguments.logs}
    for name in ("weights", "tokenizer"):
        if Path(getattr(arguments, name)).is_dir() and getattr(arguments, name):
            inputs[name] = getattr(arguments, name)
    named = {name: value for name, value in dataclasses.asdict(arguments).items() if name not in _FREE}
    manifest = artifacts.new_manifest(program=_PROGRAM, kind=_KIND, arguments=named, inputs=inputs)
    return in_place.claim(
        run,
        manifest,
        overwrite=None,
        inputs=inputs,
        remedy="give the same ones to go on, or choose another --output",
        fill=lambda new: write_config(new / CONFIG, config),
    )


def _train(
    arguments: TrainDiscriminatorArguments,
    config: CrossEncoderConfig,
    logs: LogTables,
    until: datetime.datetime | None,
    run: Path,
) -> None:
    # The imports are here because JAX takes seconds, and a finished run or a wrong argument does not need it.
    from crops_jax.discriminator.cross_encoder import WEIGHTS, CrossEncoderDiscriminator
    from crops_jax.discriminator.report import calibrate
    from crops_jax.discriminator.slices import CROSS_ENCODER, slices
    from crops_jax.models.cross_encoder import from_parameters
    from crops_jax.storage.remote import run as remote_run
    from crops_jax.training import cross_encoder
    from crops_jax.training.dual_encoder import enable_compilation_cache

    enable_compilation_cache(run)
    connection = logs.connect(memory_limit=arguments.memory_limit)
    events = read_events(connection, logs.names, long_watch_seconds=arguments.long_watch_seconds).before(until)
    all_pairs = training_pairs(
        connection,
        logs,
        events,
        until=until,
        relevant_grade=arguments.relevant_grade,
        max_pairs=config.pairs.max_pairs,
        seed=arguments.seed,
    )
    say(f"{len(all_pairs.queries)} pairs: {all_pairs.source}")
    parts = slices(all_pairs.queries, all_pairs.targets, CROSS_ENCODER)
    documents = published_before(connection, until)
    train = parts.train.nonzero()[0].tolist()
    if len(set(all_pairs.targets[train].tolist())) < 2:
        raise NothingToFit(
            f"there is nothing to fit a discriminator on: {len(train)} training pairs, all with the same target; it "
            "needs pairs that answer the query and pairs that do not (judgements of several grades, or clicks)"
        )
    queries, texts = ([side[pair] for pair in train] for side in (all_pairs.queries, all_pairs.documents))
    if not (run / _TOKENIZER).is_dir():
        _put_tokenizer(run, arguments, lambda: _learnt_from(connection, documents, queries))
    remote = remote_run.of(run)
    if remote:
        remote.share()
    pairs = _tokenized(queries, texts, arguments, config, run)
    parameters = cross_encoder.train(config, pairs, all_pairs.targets[train], run=run)
    theta = CrossEncoderDiscriminator(
        from_parameters(config.encoder, parameters),
        config=config.encoder,
        max_tokens=config.pairs.max_tokens,
        tokenizer_folder=run / _TOKENIZER,
    )
    first = slice(_MAX_LEXICAL_PAIRS)
    lexical = LexicalDiscriminator.fit(
        queries[first],
        texts[first],
        all_pairs.targets[train][first],
        corpus=CorpusStatistics.from_texts(texts_of(connection, documents)),
        populations=all_pairs.populations.of(train).of(first),
    )
    calibrate(
        theta,
        all_pairs.queries,
        all_pairs.documents,
        all_pairs.targets,
        parts=parts,
        lexical=lexical,
        populations=all_pairs.populations,
    )
    # fitted.json is written last, because it marks the run as finished.
    save_theta(theta_of("cross_encoder", theta, all_pairs, report=theta.report), run)
    if remote:
        remote.seal(WEIGHTS, DESCRIPTION, FITTED)


def _tokenized(
    queries: list[str], texts: list[str], arguments: TrainDiscriminatorArguments, config: CrossEncoderConfig, run: Path
) -> "TokenizedPairs":
    """Returns the pairs as tokens of RUN/tokenizer. Raises InputError if the vocabulary of the weights is smaller."""
    from crops_jax.text.pair_tokens import TokenizedPairs

    tokens = tokenizer.load(run / _TOKENIZER)
    pairs = TokenizedPairs(queries, texts, tokenizer=tokens, max_tokens=config.pairs.max_tokens)
    if pairs.greatest_token >= config.encoder.vocabulary_size:
        raise InputError(
            f"--tokenizer {arguments.tokenizer}: token {pairs.greatest_token} is beyond the "
            f"{config.encoder.vocabulary_size} rows of the vocabulary of --weights; give the tokenizer of the weights"
        )
    return pairs


def _put_tokenizer(run: Path, arguments: TrainDiscriminatorArguments, texts: Any) -> None:
    """Writes RUN/tokenizer atomically."""
    artifacts.remove_temporaries(run)
    with artifacts.appears_whole(run / _TOKENIZER) as temporary:
        if arguments.tokenizer:
            tokenizer.copy(arguments.tokenizer, temporary)
        elif arguments.weights:
            from crops_jax.pretrained.folder import describe, locate

            tokenizer.copy(describe(locate(arguments.weights)).tokenizer, temporary)
        else:
            tokenizer.save(learn_wordpiece(texts, vocabulary_size=arguments.vocabulary_size), temporary)


def _learnt_from(connection: Connection, documents: ibis.Table, queries: list[str]) -> Iterator[str]:
    yield from texts_of(connection, documents)
    yield from map(normalise_query, queries)


def _warn(outcome: Mapping[str, Any]) -> None:
    """Prints a warning if too many random pairs exceed the alpha that mining takes by default."""
    passing = outcome["random_pairs_passing"] or {}
    warn_of_random_pairs(passing.get(str(MiningParameters.alpha)), alpha=MiningParameters.alpha)


def _outcome(run: Path) -> dict[str, Any]:
    from crops_jax.discriminator import describe
    from crops_jax.runs.status import seconds_of

    fitted = json.loads((run / FITTED).read_text(encoding="utf-8"))
    seconds = {f"{part}_seconds": seconds_of(run, part) for part in ("compilation", "checkpoint")}
    return {"run": str(run), **fitted, **describe(run)["report"], **seconds}


if __name__ == "__main__":
    program.run(
        train_discriminator,
        example="python -m launch.train_discriminator --logs split --output run --weights minilm",
        uses_devices=True,
        then=("data.mine --logs {logs} --discriminator {output} --output LABELS",),
        device=True,
    )
