"""The pages in a browser, where one is installed: nothing is asked of anybody, and nothing is wider than a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from harness.finder import FinderResult
from harness.folder import Fields
from harness.plan import Replace
from harness.report import write_comparison, write_finder_report, write_run_report
from tests.report.folders import BEGUN, DONE, evaluated, finder_result, make_run, trained

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
MEASURE = """
const [page, free] = [...document.querySelectorAll("iframe")].map(frame => frame.contentWindow);
const root = page.document.documentElement;
document.body.dataset.found = JSON.stringify({
  width: page.innerWidth,
  room: root.clientWidth,
  needed: root.scrollWidth,
  dark: page.matchMedia("(prefers-color-scheme: dark)").matches,
  paper: page.getComputedStyle(page.document.body).backgroundColor,
  requests: free.performance.getEntriesByType("resource").map(entry => entry.name),
});
"""
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")


def look_at(page, folder, dark=False):
    """What a browser makes of a page that is 400 px wide; and what it asks for once its own policy forbids nothing."""
    frames = [
        f'<iframe style="width: 400px; border: 0" srcdoc="{html.escape(text)}"></iframe>'
        for text in (page, re.sub(r"<meta http-equiv[^>]*>", "", page))
    ]
    around = folder / "around.html"
    around.write_text(f"<body>{''.join(frames)}<script>onload = () => {{{MEASURE}}}</script>")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    options = (*FLAGS, scheme, f"--user-data-dir={folder}/browser", "--dump-dom", around.as_uri())
    shown = subprocess.run([BROWSER, *options], capture_output=True, text=True, timeout=60, check=True).stdout
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', shown)[1]))
    assert (found["width"], found["dark"]) == (400, dark)
    return found


def run_page(folder):
    long = "a-long-name-without-any-place-to-break-it" * 3
    metrics = [trained(t, 2 / t, images_per_s=1e4) for t in range(1, 101)]
    metrics += [evaluated(50, 0.3, 0.8), evaluated(100, 0.2, 0.9)]
    amendment = Replace(40, {"network.params": (None, {long: long})}, lr={}, train={})
    attempts = [BEGUN, {**BEGUN, "attempt": "b", "after": 40, "command": long, "environment": {"mxnet": long}}]
    data = {"name": "npy", "root": f"/{long}"}
    run = make_run(folder, "run", metrics, attempts, {**DONE, "attempt": "b", "cause": long}, [amendment], data=data)
    (run / "finder").mkdir()
    (run / "finder/result.json").write_text(json.dumps(finder_result()))
    write_run_report(run)
    return run / "report.html"


def comparison(folder):
    runs = [make_run(folder, f"a-run-with-a-long-name-{k}", [trained(1, 2.0)], seed=k) for k in range(6)]
    write_comparison(runs, folder / "comparison.html")
    return folder / "comparison.html"


def finder_page(folder):
    write_finder_report(FinderResult.read(Fields(finder_result(num_sweeps=3))), folder, "a-run")
    return folder / "report.html"


@pytest.mark.parametrize(("make", "dark"), [(run_page, False), (comparison, True), (finder_page, False)])
def test_a_page_fits_a_phone_has_its_colours_and_needs_nobody(make, dark, tmp_path):
    found = look_at(make(tmp_path).read_text(), tmp_path, dark)
    assert found["needed"] == found["room"]
    assert found["paper"] == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    assert found["requests"] == []


def test_what_is_wide_or_asks_for_something_is_noticed(tmp_path):
    page = "<!doctype html><div style='width: 500px'>wide</div><img src='http://example.invalid/picture.png'>"
    found = look_at(page, tmp_path)
    assert found["needed"] > found["room"]
    assert found["requests"] == ["http://example.invalid/picture.png"]
