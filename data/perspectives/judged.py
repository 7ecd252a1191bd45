"""Graded judgements as labels, for sources without a log."""

import ibis

from crops_jax.errors import InputError
from data.perspectives.rows import as_rows

SOURCE = "judgements"


def parse_grade_levels(text: str) -> list[tuple[float, int]]:
    """Steps from "GRADE=LEVEL,...", by ascending grade: the least grade of each level.

    Raises InputError: not of that form, a grade or level twice, or a higher grade with a lower level.
    """
    steps = []
    for part in text.split(","):
        grade, _, level = part.strip().partition("=")
        try:
            steps.append((float(grade), int(level)))
        except ValueError as error:
            raise InputError(f"--grade-levels {text!r}: {part.strip()!r} is not GRADE=LEVEL, as in 0=3,1=4") from error
    steps.sort()
    grades, levels = [grade for grade, _ in steps], [level for _, level in steps]
    if not all(0 <= grade < float("inf") for grade in grades) or not all(0 <= level <= 5 for level in levels):
        raise InputError(f"--grade-levels {text!r}: grades are numbers >= 0, levels are 0 to 5")
    if len(set(grades)) < len(grades) or levels != sorted(set(levels)):
        raise InputError(f"--grade-levels {text!r}: every higher grade needs a higher level, each named once")
    return steps


def labels(judgements: ibis.Table, steps: list[tuple[float, int]]) -> ibis.Table:
    """Rows of the judgements whose grade reaches the first step; their level is that of the last step reached.

    Args:
      judgements: query, doc_id, grade of those that may be learnt from (discriminator_pairs.train_judgements).
      steps: what `parse_grade_levels` gave.
    """
    judged = judgements.filter(judgements.grade >= steps[0][0])
    level = ibis.cases(*((judged.grade >= grade, level) for grade, level in reversed(steps)))
    return as_rows(judged, level=level, source=SOURCE)
