"""Labels from graded judgements, for sources without a log."""

import ibis

from crops_jax.errors import InputError
from data.perspectives.rows import as_rows

SOURCE = "judgements"


def parse_grade_levels(text: str) -> list[tuple[float, int]]:
    """Parses "GRADE=LEVEL,...": the minimum grade of each level.

    Returns:
      (grade, level), by ascending grade.

    Raises:
      InputError: the text has another form, has a grade or a level twice, or a higher grade has a lower level.
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
    """Returns the rows of the judgements with at least the first minimum grade of `steps`.

    The level of a row is that of the greatest minimum grade that its grade reaches.

    Args:
      judgements: query, doc_id and grade of the judgements that training can use
        (discriminator_pairs.train_judgements).
      steps: the result of `parse_grade_levels`.
    """
    judged = judgements.filter(judgements.grade >= steps[0][0])
    level = ibis.cases(*((judged.grade >= grade, level) for grade, level in reversed(steps)))
    return as_rows(judged, level=level, source=SOURCE)
