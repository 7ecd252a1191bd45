"""Every figure of a hand-made log and label table was worked out by hand."""

from data.mining_report import figures as figures
from data.mining_report.examples import Way, draw_examples
from data.mining_report.figures import Distribution, Gain, Part
from data.mining_report.tables import open_tables
from tests.data.mining_report.labels import entry, label


def test_gains_are_those_worked_out_by_hand(opened):
    assert figures.gains(opened) == {
        "search_log": Gain(2, 2, 2, 1, (2, 0, 0, 0, 0)),
        "query_level": Gain(2, 3, 3, 1, (1, 1, 1, 0, 0)),
        "system_level": Gain(2, 4, 4, 3, (0, 1, 1, 1, 1)),
        "knowledge_level": Gain(3, 3, 3, 3, (0, 0, 0, 0, 3)),
    }
    assert list(figures.gains(opened)) == ["search_log", "query_level", "system_level", "knowledge_level"]
    # d0 is a click, k0 to k2 are no documents of the corpus, d2 counts once.
    assert figures.beyond_log(opened) == Gain(3, 5, 5, 4, (0, 2, 1, 1, 1))


def test_what_was_never_shown_is_ranked_filtered_or_no_candidate():
    gain = Gain(1, 10, 10, 10, (1, 2, 3, 4, 0))
    assert (gain.not_clicked, gain.never_shown, gain.never_candidate) == (9, 7, 0)
    assert gain.share("never_shown") == 0.7
    unknown = Gain(1, 10, 10, 10, None)
    assert (unknown.never_shown, unknown.share("never_shown")) == (None, None)
    assert Gain(0, 0, 0, 0, (0, 0, 0, 0, 0)).share("never_shown") is None


def test_overlaps_are_those_worked_out_by_hand(opened):
    assert figures.overlaps(opened) == {
        ("search_log", "search_log"): 2,
        ("query_level", "query_level"): 3,
        ("system_level", "system_level"): 4,
        ("knowledge_level", "knowledge_level"): 3,
        ("search_log", "query_level"): 1,
        ("query_level", "search_log"): 1,
        ("query_level", "system_level"): 1,
        ("system_level", "query_level"): 1,
    }


def test_distributions_are_those_worked_out_by_hand(opened):
    assert figures.positives_per_query(opened) == {
        "search_log": Distribution(2, 0, 1, 1, 1, [("1", 2)]),
        "query_level": Distribution(2, 0, 1, 2, 2, [("1", 1), ("2", 1)]),
        "system_level": Distribution(2, 0, 1, 3, 3, [("1", 1), ("2", 0), ("3 to 5", 1)]),
        "knowledge_level": Distribution(3, 0, 1, 1, 1, [("1", 3)]),
    }
    assert figures.supporters(opened) == {
        "search_log": Distribution(2, 0, 1, 1, 1, [("1", 2)]),
        "query_level": Distribution(3, 0, 1, 3, 3, [("1", 2), ("2", 0), ("3 to 4", 1)]),
        "system_level": Distribution(4, 0, 1, 5, 5, [("1", 2), ("2", 1), ("3 to 4", 0), ("5 to 9", 1)]),
    }
    gaps = figures.gaps(opened)
    assert list(gaps) == ["query_level", "system_level"]
    assert gaps["query_level"][:5] == (3, 0, 20.0, 90.0, 90.0)
    # The border belongs to the bin below it.
    assert [found for found in gaps["query_level"].bins if found[1]] == [("10 to 20 s", 2), ("80 to 90 s", 1)]
    assert [found for found in gaps["system_level"].bins if found[1]] == [("0 to 200 s", 3), ("1600 to 1800 s", 1)]
    assert len(gaps["system_level"].bins) == 9


def test_which_queries_gained_is_what_was_worked_out_by_hand(opened):
    assert figures.parts(opened) == {
        "head": Part(1, 3, {"search_log": (1, 1), "query_level": (1, 2), "system_level": (1, 3)}),
        "torso": Part(1, 2, {"search_log": (1, 1), "system_level": (1, 1)}),
        "tail": Part(2, 2, {"query_level": (1, 1), "knowledge_level": (2, 2)}),
        "not searched": Part(1, 0, {"knowledge_level": (1, 1)}),
    }
    without, others = figures.without_click(opened)
    assert without == Part(2, 2, {"query_level": (1, 1), "knowledge_level": (2, 2), "together": (2, 3)})
    assert others == Part(
        2, 5, {"search_log": (2, 2), "query_level": (1, 2), "system_level": (2, 4), "together": (2, 4)}
    )


def test_levels_and_what_is_not_known_are_counted(opened):
    assert figures.levels(opened) == {
        "search_log": {4: 1},
        "query_level": {5: 3},
        "system_level": {4: 3},
        "knowledge_level": {4: 3},
        "shown_not_clicked": {3: 1},
        "filtered_before_ranking": {1: 1},
        "model_mined": {3: 1},
    }
    assert figures.unknown_documents(opened) == 1
    assert figures.without_evidence(opened) == 1
    assert figures.writers(opened) == {"m": 3}


def test_examples_carry_their_whole_chain(opened):
    drawn = {example.doc_id: example for example in draw_examples(opened, "query_level", number=9, seed=0)}
    assert set(drawn) == {"d0", "d2", "d6"}
    assert drawn["d0"].title == "title 0"
    assert drawn["d0"].searches == 3
    assert drawn["d0"].place == "clicked"
    assert drawn["d0"].ways == [
        Way("query_level", "lamp red", 20.0, 2, 0.9),
        Way("query_level", "lamp", 40.0, 3, 0.9),
        Way("search_log", None, None, 1, None),
    ]
    assert drawn["d2"].place == "ranked_not_shown"
    assert drawn["d0"].ways[0].facts() == ["20 s apart", "2 users", "theta 0.900"]
    # What was clicked anyway comes last.
    assert list(drawn)[-1] == "d0"
    (written,) = [one for one in draw_examples(opened, "knowledge_level", number=9, seed=0) if one.doc_id == "k2"]
    assert (written.title, written.model, written.searches) == ("written 2", "m", None)


def test_examples_are_drawn_by_seed(opened):
    def drawn(seed):
        return [one.doc_id for one in draw_examples(opened, "system_level", number=2, seed=seed)]

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(10)}) > 1


def test_equal_frequencies_are_not_parted_and_what_was_searched_once_is_tail(write_logs, write_labels, at):
    searches = [{"search_id": f"s{i}", "user_id": "u", "query": f"q{i // 2}", "time": at(i)} for i in range(8)]
    logs = write_logs(
        searches=searches, candidates=[{"search_id": "s0", "doc_id": "d0", "stage": "shown", "clicked": True}]
    )
    labels = write_labels([label("q0", "d0", entry("search_log", 4, supporters=1))])
    with open_tables(labels, logs, until=None, long_watch_seconds=30.0) as tables:
        assert figures.parts(tables) == {"head": Part(4, 8, {"search_log": (1, 1)})}
