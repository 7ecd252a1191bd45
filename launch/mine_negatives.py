"""Mines negatives with a model: the nearest documents of a query that are not known positives enter a label table.

For each query of LABELS that has a positive and a vector, the program ranks the documents by cosine, removes the known
positives of the query, selects at most --per-query documents of the ranks --skip + 1 to --top whose scores are below
the margin, and adds them at --level. launch.embed writes the vectors; this program encodes nothing. With --ranked-by
bm25, BM25 ranks the documents of --logs, and no vectors are needed.

launch.train --negatives.refresh-every-steps mines again and again during the training itself, as ANCE does (arXiv
2007.00808); this program mines once, into a table that can be looked at.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from crops_jax import artifacts, program
from crops_jax.devices import processes
from launch.negatives.arguments import MineNegativesArguments

# Arguments that name a path that is an input already, or the memory, and do not change the result.
_NOT_WHAT = {"logs", "memory_limit"}


def mine_negatives(arguments: MineNegativesArguments) -> dict[str, Any]:
    """Adds the nearest documents of each query that are not known positives to a label table, as negatives.

    The vectors of an encoder run, or BM25, decide which documents are the nearest. The outcome line also has the share
    of the mined negatives that are relevant (false negatives), measured on judged pairs.
    """
    # Here, so that --help needs neither JAX nor the tables' readers.
    from data.labels.table import check_mined_from, open_labels
    from data.tables.files import named_read_errors
    from launch.evaluation.lineage import refuse_seen_answers
    from launch.negatives.mined_labels import MinedLabels
    from launch.negatives.mining import mine, open_ranked

    processes.refuse_several("launch.mine_negatives")
    inputs = {
        "labels": arguments.labels,
        "query_embeddings": arguments.query_embeddings or None,
        "document_embeddings": arguments.document_embeddings or None,
        # The key is not "logs", because that key names the logs that a label table was mined from.
        "judged_logs": arguments.logs,
    }
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    if arguments.document_embeddings:
        refuse_seen_answers(arguments.document_embeddings, arguments.labels)
    if arguments.logs is not None:
        check_mined_from(arguments.labels, arguments.logs)
    ranked = open_ranked(arguments)
    recorded = {f.name: getattr(arguments, f.name) for f in fields(arguments) if f.name not in _NOT_WHAT}
    mined: dict[str, Any] = {}
    with (
        artifacts.output_directory(
            arguments.output,
            overwrite=arguments.overwrite,
            program="launch.mine_negatives",
            kind="labels",
            arguments=recorded,
            inputs=inputs,
            mined=mined,
        ) as out,
        open_labels(arguments.labels) as (connection, table),
        named_read_errors(table),
    ):
        labels = MinedLabels(
            connection,
            query_ids=ranked.query_ids,
            doc_ids=ranked.doc_ids,
            memory_limit=arguments.memory_limit,
            replace_negatives=arguments.replace_negatives,
            dev_fraction=arguments.dev_fraction,
        )
        mined.update(mine(arguments, ranked, labels, out))
        sweep = Path(arguments.labels) / "alpha_sweep.json"
        if sweep.is_file():
            artifacts.write_text(out / sweep.name, sweep.read_text(encoding="utf-8"))
    return {"labels": arguments.output, **mined}


if __name__ == "__main__":
    program.run(
        mine_negatives,
        example="python -m launch.mine_negatives --labels labels --query-embeddings queries --document-embeddings "
        "documents --level 1 --relative-margin .05 --logs split --output mined",
        uses_devices=True,
        then=("data.write_records --labels {output} --logs SPLIT --output RECORDS",),
        device=True,
    )
