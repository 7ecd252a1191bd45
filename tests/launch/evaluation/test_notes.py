from launch.evaluation.notes import judging_notes


def tables(**shares):
    return {name: {"judgements": {"judged@4": {"value": share}}} for name, share in shares.items()}


def test_systems_of_which_unlike_shares_are_judged_have_a_note():
    (note,) = judging_notes(tables(encoder=0.68, bm25=0.9921))
    assert "first 4 documents" in note
    assert "encoder 68.0%, bm25 99.2%" in note


def test_like_shares_and_absent_judgements_need_no_note():
    assert judging_notes(tables(encoder=0.96, bm25=1.0)) == []
    assert judging_notes({"encoder": {"ct": {}}}) == []
    assert judging_notes(tables(encoder=None, bm25=None)) == []
