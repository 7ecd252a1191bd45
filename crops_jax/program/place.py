"""The place of a program in a chain of programs, which the chain passes on in the environment."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping

from crops_jax.errors import CHAIN_VARIABLE

INTERRUPTED = "interrupted"
"""The field of the line on standard output in which a program of a chain returns the message of its interrupt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """One step of a chain, as the program that runs it sees the chain. All times are in seconds.

    number, total: the number of the step, from 1, and the number of steps.
    started: the time at which the step began (time.time()).
    expected: the time that the step takes as a whole, if a step of the same program was measured before; else None.
    later: the time that the later steps take, as far as steps of the same programs were measured.
    same: the number of later steps that are not in `later` and are calls of this step's program.
    unknown: the number of later steps of which nothing is known.
    """

    number: int
    total: int
    started: float
    expected: float | None = None
    later: float = 0.0
    same: int = 0
    unknown: int = 0

    @property
    def label(self) -> str:
        """The number of the step among all, as it stands before every line of the step."""
        return f"[{self.number}/{self.total}]"

    def left(self, own: float, *, now: float | None = None) -> float:
        """Returns the time that is left for the whole chain; where `unknown` is not 0, it takes more than this.

        Args:
          own: the time that is left for what the step does at present.
          now: the present time, by default time.time().
        """
        spent = (time.time() if now is None else now) - self.started
        own = own if self.expected is None else max(own, self.expected - spent)
        return own + self.later + self.same * (spent + own)

    def environment(self) -> dict[str, str]:
        """Returns the variable that passes this place on to the program of the step."""
        return {CHAIN_VARIABLE: json.dumps(dataclasses.asdict(self))}


def place_in_chain(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Returns the place of this process in a chain, or None for a program that a person or a script started."""
    text = environment.get(CHAIN_VARIABLE)
    return Place(**json.loads(text)) if text else None
