"""Writes pages that load no other file: one HTML file holds the style, the pictures and the manifest of the page.

The Jinja template of a page extends page.html.j2 and fills the blocks title, style (rules of this page only), header
and content. The charts are those of crops_jax.pages.
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
"""The names of the levels in pages, from the highest level on."""

_SHOWN_NOTES = 3
"""The number of notes that are shown at once, so that the figures are not far below."""
_BASE = Path(__file__).with_name("page.html.j2")
_MARK = '<script type="application/json" id="manifest">'


def check_page(output: Path | str, *, overwrite: bool, inputs: Mapping[str, Path | str] | None = None) -> None:
    """Raises InputError when the path `output` cannot be used for a page.

    It must not be a directory, a page that exists (unless `overwrite` is set), any other file that is not a page of
    crops_jax, or a path inside one of the inputs, whose fingerprint the page would change.

    Args:
      output: the file of the page.
      overwrite: whether a page that exists is replaced.
      inputs: the directories and files that the program reads, by the name of their flag.
    """
    output, is_folder = Path(output), str(output).endswith("/")
    for name, source in (inputs or {}).items():
        if Path(source).resolve() in output.resolve().parents:
            raise InputError(f"--output {output} lies in --{name} {source}; choose another output")
    if is_folder or output.is_dir():
        raise InputError(f"{output} is a directory; name a file, such as report.html")
    if output.exists():
        if not overwrite:
            raise InputError(f"{output} exists; add --overwrite to replace it, or choose another output")
        if _MARK not in output.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{output} is not a page of crops_jax, so it is not replaced; choose another output")


def write_page(
    output: Path | str, template: Path, *, manifest: Mapping[str, Any], notes: Sequence[str] = (), **fields: Any
) -> None:
    """Renders a template and writes the page. The page is written completely or not at all.

    Text is escaped unless it is Markup. The filters are figure (0.123), signed (+0.123), share (12.3 %) and count
    (1,234). Each of them shows a dash for None.

    Args:
      output: the file of the page.
      template: a template that extends page.html.j2.
      manifest: the manifest that `artifacts.new_manifest` returned. It is embedded in the page.
      notes: sentences that the user should read before the figures, the most important ones first.
      fields: all other variables of the template. A missing one is an error.
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
        **fields,
        notes=notes,
        shown_notes=_SHOWN_NOTES,
        version=__version__,
        mark=Markup(_MARK),
        manifest=Markup(_json_for_script(manifest)),
    )
    artifacts.write_text(output, page)


def share(value: float | None) -> str:
    """Returns a share in [0, 1] as a percentage. Only exactly 0 is "0 %", and only exactly 1 is "100 %"."""
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
    """Returns JSON in which no text can end the script element around it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
