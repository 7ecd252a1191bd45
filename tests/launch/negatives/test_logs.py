"""What the logs are for: judgements, texts, and where labels and encoders come from."""

import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from data.labels.table import mined_from
from launch.mine_negatives import mine_negatives
from tests.embedding_folders import at_cosines, write_embeddings
from tests.launch.negatives.labelled import COSINES, arguments, new_rows, write_labels, write_logs


def test_false_negatives_are_counted_on_judgements_of_split_train(folders):
    judged = [
        ("red shoe", "b", 2.0, "train"),
        ("RED shoe", "c", 0.0, None),
        ("red shoe", "d", 3.0, "test"),
        ("red shoe", "g", 1.0, "dev"),
        ("red shoe", "a", 3.0, "train"),
        ("red shoe", "e", 3.0, "train"),
    ]
    logs = write_logs(folders / "logs", judged)
    outcome = mine_negatives(arguments(folders, logs=str(logs)))
    # b and c are judged; d and g are of other splits; a is a positive and e was a negative before.
    found = outcome["false_negatives"]
    assert (found["judged"], found["relevant"], found["queries"], found["mined"]) == (2, 1, 1, 4)
    assert found["rate"] == 0.5
    # Wilson's interval of 1 in 2.
    assert (found["low"], found["high"]) == (0.0945, 0.9055)
    outcome = mine_negatives(arguments(folders, logs=str(logs), relevant_grade=3.0, overwrite=True))
    assert outcome["false_negatives"]["rate"] == 0.0
    assert outcome["false_negatives"]["low"] == 0.0
    assert 0.6 < outcome["false_negatives"]["high"] < 0.7


def test_it_is_said_that_nothing_was_judged(folders):
    outcome = mine_negatives(arguments(folders, logs=str(write_logs(folders / "logs"))))
    found = outcome["false_negatives"]
    assert found["rate"] is None
    assert found["why"] == "no judgement of split train names a mined pair"


def test_documents_with_the_text_of_a_positive_are_left_out_where_asked(folders):
    logs = write_logs(folders / "logs")
    outcome = mine_negatives(arguments(folders, logs=str(logs), exclude_same_text=True))
    assert outcome["positives_passed_over"] == 2
    assert [doc_id for doc_id in new_rows(folders / "mined") if doc_id != "f"] == ["b", "d", "g"]


def test_the_chain_to_the_logs_stays_whole(folders):
    logs = write_logs(folders / "logs")
    labels = write_labels(folders / "signed", logs=logs)
    mine_negatives(arguments(folders, labels=str(labels), logs=str(logs)))
    assert mined_from(folders / "mined") == artifacts.fingerprint(logs)
    other = write_logs(folders / "other", [("lamp", "b", 1.0, "train")])
    with pytest.raises(InputError, match="were mined from other log tables"):
        mine_negatives(arguments(folders, labels=str(labels), logs=str(other), output=str(folders / "x")))


def signed(path, kind, *, inputs, program="data.mine", **arguments_):
    """A directory of which only the manifest matters."""
    path.mkdir(exist_ok=True)
    artifacts.write_manifest(
        path, artifacts.new_manifest(program=program, kind=kind, arguments=arguments_, inputs=inputs)
    )
    return path


def test_a_run_that_saw_the_test_period_is_refused(folders):
    whole = signed(folders / "whole", "logs", inputs={}, program="data.simulate")
    split = signed(
        write_logs(folders / "split"), "logs", inputs={"logs": whole}, program="data.hold_out", from_="2024-05-01"
    )
    labels = write_labels(folders / "signed", logs=split)
    for name, logs, until in (("sees", whole, None), ("stops", whole, "2024-05-01"), ("split-only", split, None)):
        learnt = signed(folders / f"{name}-labels", "labels", inputs={"logs": logs}, until=until)
        records = signed(folders / f"{name}-records", "records", inputs={"labels": learnt})
        run = signed(folders / f"{name}-run", "run", inputs={"records": records})
        embedded = write_embeddings(
            folders / name, list(COSINES), at_cosines(*COSINES.values()), tower="document", inputs={"run": run}
        )
        given_ = arguments(
            folders, labels=str(labels), document_embeddings=str(embedded), output=str(folders / f"{name}-mined")
        )
        if name == "sees":
            with pytest.raises(InputError, match=r"the run of .*sees was trained on labels .* has seen the answers"):
                mine_negatives(given_)
        else:
            assert mine_negatives(given_)["mined"] == 4
