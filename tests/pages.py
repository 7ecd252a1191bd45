"""Pages in a browser, where there is one: what sticks out at a width, and how far down something is."""

import html as html_text
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

_VOID = {"meta", "br", "line", "circle", "rect", "polyline"}


def browser():
    """The path of a Chromium; None where there is none."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


def overflow(html, *, width, folder):
    """By how much a page is wider than a frame of `width`, and how many elements beside scrolled boxes stick out."""
    wide = f"""[...page.body.querySelectorAll("*")].filter((element) =>
            !element.closest(".scroll") && element.getBoundingClientRect().right > {width} + 0.5).length"""
    expression = f"[Math.max(0, page.documentElement.scrollWidth - {width}), {wide}]"
    return tuple(_evaluated(html, expression, width=width, folder=folder))


def place_of(html, selector, text, *, width, folder):
    """The pixels above the first element of a selector with a text, in a frame of `width`."""
    found = (
        f"""[...page.querySelectorAll({json.dumps(selector)})].find((one) => one.textContent == {json.dumps(text)})"""
    )
    return _evaluated(html, f"{found}.getBoundingClientRect().top", width=width, folder=folder)


def _evaluated(html, expression, *, width, folder):
    """The value of a JavaScript expression on a page, which it knows as `page`.

    The page lies in a frame, since a browser window cannot be as narrow as a phone.
    """
    (folder / "page.html").write_text(html)
    probe = folder / "probe.html"
    probe.write_text(
        f"""<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe>
        <pre id="out"></pre><script>
        const frame = document.querySelector("iframe");
        frame.addEventListener("load", () => {{
          const page = frame.contentDocument;
          document.getElementById("out").textContent = JSON.stringify({expression});
        }});</script>"""
    )
    done = subprocess.run(
        [
            browser(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,900",
            "--virtual-time-budget=5000",
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(folder)},
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-500:]
    return json.loads(html_text.unescape(found[1]))


class Balance(HTMLParser):
    """Fails where an element is closed that is not the last one opened; `open` are those still open."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag


def unclosed(html):
    """The elements of a page that are never closed."""
    parser = Balance()
    parser.feed(html)
    return parser.open


def text_of(html):
    """The words of a page, white space folded."""
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())
