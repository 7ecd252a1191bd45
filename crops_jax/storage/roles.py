"""The types of the arguments that are paths. Each says what the program does with the path.

    logs: InputPath
    output: OutputPath
    state: LocalPath | None = None

A field whose type is plain `str` is no path and is never looked at. An argument that takes a folder or a name on the
Hugging Face hub is a path too.
"""

import enum
from typing import Annotated


class Role(enum.Enum):
    """The use that a program makes of a path."""

    INPUT = "input"
    """The program reads a file or a folder."""
    RECORDS = "records"
    """The program reads training records, whose shards in a bucket can be read by ranges."""
    OUTPUT = "output"
    """The program writes a file or a folder that is published whole when the program ends."""
    RESUMED = "resumed"
    """The program writes a folder that is published when it ends, and continues what an earlier call wrote."""
    RUN = "run"
    """The program works for a long time in a folder of a run, which a bucket gets while the program works."""
    STATE = "state"
    """The program reads how far a run has come, and no arrays of its checkpoints."""
    LOCAL = "local"
    """The program works in the file or folder for a long time: it locks, renames and continues files in it."""
    FLAGS = "flags"
    """The program hands the text, which is flags, to another program."""


InputPath = Annotated[str, Role.INPUT]
"""The type of a path that a program reads."""
RecordsPath = Annotated[str, Role.RECORDS]
"""The type of a path of training records that a program reads in part."""
OutputPath = Annotated[str, Role.OUTPUT]
"""The type of a path that a program publishes whole when it ends."""
ResumedPath = Annotated[str, Role.RESUMED]
"""The type of a path that a program publishes when it ends, and continues."""
RunPath = Annotated[str, Role.RUN]
"""The type of the path of a run that a program trains."""
StatePath = Annotated[str, Role.STATE]
"""The type of the path of a run whose progress a program reads."""
LocalPath = Annotated[str, Role.LOCAL]
"""The type of a path that a program works in."""
OtherFlags = Annotated[str, Role.FLAGS]
"""The type of further flags of another program, in one string."""
