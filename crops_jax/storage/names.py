"""The paths in buckets that local paths of this process stand for.

A program works on local copies. What it prints and records has the paths that the user gave.
"""

from pathlib import Path
from typing import Any

_urls: dict[str, str] = {}


def remember(local: str, url: str) -> None:
    """Notes that a local path stands for a path in a bucket, until `forget`."""
    _urls[local] = url


def forget() -> None:
    """Drops all that `remember` noted."""
    _urls.clear()


def shown_in(value: Any) -> Any:
    """Returns a JSON value with `shown` of every text in it."""
    if isinstance(value, dict):
        return {shown_in(key): shown_in(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown_in(one) for one in value]
    return shown(str(value)) if isinstance(value, str | Path) else value


def shown(text: str) -> str:
    """Returns a text with the paths that the user gave instead of the local paths that stand for them."""
    for local in sorted(_urls, key=len, reverse=True):
        text = text.replace(local, _urls[local])
    return text
