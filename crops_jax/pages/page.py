"""Pages that load nothing: one HTML file that holds its style, its pictures and the manifest of what it was made from.

A page is a Jinja template beside its program that extends page.html.j2 and fills the blocks title, style (what this
page alone needs), header and content. Pictures come from crops_jax.charts.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from crops_jax import __version__, artifacts
from crops_jax.errors import InputError
from crops_jax.labels import Level

LEVELS = {
    Level.QUERY_LEVEL_POSITIVE: "5 rephrased query",
    Level.POSITIVE: "4 clicked or mined",
    Level.SHOWN_NOT_CLICKED: "3 shown, not clicked",
    Level.RANKED_NOT_SHOWN: "2 ranked, not shown",
    Level.FILTERED_BEFORE_RANKING: "1 filtered out",
    Level.IN_BATCH_NEGATIVE: "0 negative",
}
"""What pages call the levels, from the highest on."""

_BASE = Path(__file__).with_name("page.html.j2")
_MARK = '<script type="application/json" id="manifest">'


def check_page(output: Path | str, *, overwrite: bool, inputs: Mapping[str, Path | str] | None = None) -> None:
    """Raises InputError when a page may not be written there.

    That is: a directory, a page that is there when `overwrite` is not set, a file that is no page of ours, and a place
    in one of the inputs, whose fingerprint it would change.
    """
    output = Path(output)
    for name, source in (inputs or {}).items():
        if Path(source).resolve() in output.resolve().parents:
            raise InputError(f"--output {output} lies in --{name} {source}; choose another output")
    if output.is_dir():
        raise InputError(f"{output} is a directory; name a file, such as report.html")
    if output.exists():
        if not overwrite:
            raise InputError(f"{output} exists; add --overwrite to replace it, or choose another output")
        if _MARK not in output.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{output} is not a page of crops_jax, so it is not replaced; choose another output")


def write_page(
    output: Path | str, template: Path, *, manifest: Mapping[str, Any], notes: Sequence[str] = (), **fields: Any
) -> None:
    """Renders a template and writes the page, whole or not at all.

    Text is escaped unless it is Markup. The filters are figure (0.123), signed (+0.123), share (12.3 %) and count
    (1,234); each shows a dash for None.

    Args:
      output: the file.
      template: extends page.html.j2.
      manifest: what `artifacts.new_manifest` gave; it is embedded.
      notes: what is to be read before the figures.
      fields: whatever else the template names; one that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _BASE.parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"figure": _figure, "signed": _signed, "share": share, "count": _count}
    page = environment.get_template(template.name).render(
        **fields, notes=notes, version=__version__, mark=Markup(_MARK), manifest=Markup(_json_for_script(manifest))
    )
    artifacts.write_text(output, page)


def share(value: float | None) -> str:
    """A share of 0 to 1 in per cent; only none is 0 % and only all is 100 %."""
    if value is None:
        return "–"
    if value in (0, 1):
        return f"{value:.0%}".replace("%", " %")
    return "<0.1 %" if value < 0.0005 else ">99.9 %" if value >= 0.9995 else f"{100 * value:.1f} %"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def _json_for_script(value: Any) -> str:
    """JSON in which nothing can end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
