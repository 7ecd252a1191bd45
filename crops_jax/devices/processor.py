"""Names the processor of this machine, for the records of what was measured on it."""

import platform
from pathlib import Path

_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Returns the model name of the processor, or what the platform module says where Linux does not name one."""
    lines = _INFO.read_text().splitlines() if _INFO.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
