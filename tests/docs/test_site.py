"""The documentation as a site: it builds without a warning, loads nothing from elsewhere, and fits a telephone.

Slow: MkDocs reads every page and every docstring. Chromium opens all pages at 1280 and 400 px, in light and dark, and
says what it had to load and whether anything is wider than the window.
"""

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCHEMES = {"dark": 0, "light": 1}
LOOK = """<!doctype html><title>looking</title><pre id="found"></pre><script>
const pages = PAGES, width = WIDTH, found = [];
async function look(page) {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.src = "/" + page;
  await new Promise(resolve => { frame.onload = resolve; document.body.append(frame); });
  await new Promise(resolve => setTimeout(resolve, 50));
  const inside = frame.contentDocument, root = inside.documentElement;
  found.push({
    page, title: inside.title, wide: root.scrollWidth,
    ground: frame.contentWindow.getComputedStyle(inside.body).backgroundColor,
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map(each => each.name),
    empty: [...inside.images].filter(each => each.offsetWidth && !each.naturalWidth).map(each => each.src),
  });
  frame.remove();
}
(async () => {
  for (const page of pages) await look(page);
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("MkDocs Material is not installed: pip install 'fedllm-commons[docs]'")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


def pages(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")


def test_all_pages_are_there(site):
    found = pages(site)
    assert {"index.html", "results.html", "measured.html", "python.html", "commands/fedllm-train.html"} <= {*found}
    assert not any(name.startswith("making") for name in found)
    assert not list(site.rglob("*.py"))


def test_pages_name_nothing_elsewhere_that_a_browser_would_load(site):
    """Links to read on may lead anywhere; scripts, styles, fonts, pictures and frames may not."""
    loads = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|srcset|data)=\"([^\"]+)\""
    )
    for name in pages(site):
        text = (site / name).read_text(encoding="utf-8")
        heads = [
            tag
            for tag in re.findall(r"<link\b[^>]*>", text)
            if not re.search(r'rel="(?:canonical|next|prev|alternate)"', tag)
        ]
        targets = [*loads.findall(text), *re.findall(r'href="([^"]+)"', " ".join(heads))]
        assert targets
        outside = [target for target in targets if re.match(r"(?:[a-z]+:)?//", target)]
        assert not outside, (name, outside)


def test_styles_load_nothing_from_elsewhere(site):
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_public_name_is_in_the_reference(site):
    import fedllm_data
    import fedllm_eval
    import fedllm_train

    text = (site / "python.html").read_text(encoding="utf-8")
    for package in (fedllm_data, fedllm_train, fedllm_eval):
        for name in package.__all__:
            assert re.search(rf'id="{package.__name__}\.[\w.]*\b{name}"', text), f"{package.__name__}.{name}"


def test_examples_of_docstrings_are_code(site):
    text = (site / "python.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt;" in text
    assert "<blockquote" not in text
    from docs.making.doctest_blocks import with_code_blocks

    two = "Add.\n\n>>> 1 + 1\n2\n\n>>> 2 + 2\n4\n\nMore."
    assert with_code_blocks(two) == "Add.\n\n```pycon\n>>> 1 + 1\n2\n\n>>> 2 + 2\n4\n```\n\nMore."


def test_the_search_knows_the_guides(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert {"importing.html", "training.html", "results.html"} <= {each["location"] for each in index["docs"]}
    assert (site / "search" / "search_index.js").is_file()  # what the search reads when the site is opened from disk


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *given: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_search_runs_from_disk(site, tmp_path):
    """A browser gives a page on disk no worker and no file to read: the index comes as a script."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom"),
        f"{(site / 'index.html').as_uri()}?q=codebook",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert re.search(r"\d+ matching documents", done.stdout), done.stderr[-2000:]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1280, 400])
def test_chromium_opens_every_page(site, served, tmp_path, width, scheme):
    names = pages(site)
    (site / "look.htm").write_text(LOOK.replace("PAGES", json.dumps(names)).replace("WIDTH", str(width)))
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        *("--virtual-time-budget=120000", f"--window-size={width + 40},1000", "--dump-dom", f"{served}/look.htm"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr[-2000:]
    assert match[1], done.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert [each["page"] for each in found] == names
    for each in found:
        assert each["title"], each["page"]
        assert each["wide"] <= width, (each["page"], each["wide"])
        assert not each["empty"], (each["page"], each["empty"])
        assert all(name.startswith((served, "data:")) for name in each["loaded"]), each["page"]
        shade = sum(map(int, re.findall(r"\d+", each["ground"])[:3])) / 3
        assert shade > 200 if scheme == "light" else shade < 80, (each["page"], each["ground"])
