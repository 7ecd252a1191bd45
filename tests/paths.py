"""Where the repository and the shared data lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""

SHARED_DATA = ROOT.parent / "shared" / "data"
"""Public data sets that may be read and not redistributed; tests that need one skip where it is absent."""
