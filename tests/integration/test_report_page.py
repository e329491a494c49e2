"""The page in a real browser, without a network: Chromium, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.report import figures, make_page

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium isn't installed: apt-get install chromium"
)

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
)

PROBE = """
<pre id="probe"></pre>
<script>
(async () => {
  const seen = {};
  const look = (name) => {
    const tiles = document.querySelectorAll("#headline .tile");
    seen[name] = Object.fromEntries(
      [...tiles].map((tile) => [tile.dataset.figure, tile.firstChild.textContent])
    );
  };
  const set = (id, value) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const pause = () => new Promise((done) => setTimeout(done, 200));
  ACTIONS
  document.getElementById("probe").textContent = JSON.stringify(seen);
})();
</script>
</body>"""


def small_figures(**changes: Any) -> dict[str, Any]:
    """Return figures of two days, OAs, templates and telcos, as the reader makes them.

    On the first day OA a sent 100 of template t1; on the second OA b 50 of t2.
    """
    outcomes = {name: [0, 0] for name in figures.OUTCOMES}
    outcomes |= {"delivered": [80, 20], "failed": [15, 30], "pending": [5, 0]}
    aged = {name: [90, 25] for name in figures.AGED} | {"timed": [100, 50]}
    keys = {"day": [0, 1], "oa": [0, 1], "template": [0, 1]}
    backlog = {"oa_id": "a", "due": 3, "waiting": 2, "oldest_due_at": None}
    backlog |= {"next_due_at": None, "requests": 1, "api_hours": 0.1}
    numbers = (
        *("seconds", "requests", "retries", "requests_per_second", "rate_used"),
        *("asked", "answered", "missing", "failed", "rejected", "unknown_codes"),
    )
    run = dict.fromkeys(numbers, 1)
    return {
        "generated_at": "2026-01-09T00:00:00+00:00",
        "local_time": "2026-01-12T07:00:00",
        "dataset": "zalo",
        "timezone": "Asia/Ho_Chi_Minh",
        "outcomes": figures.OUTCOMES,
        "ages": figures.AGES,
        "unit": "day",
        "days": ["2026-01-06", "2026-01-07"],
        "oas": ["a", "<b>&"],
        "templates": ["=t1", "=t2"],
        "telcos": [{"id": 1, "name_en": "Viettel", "name_vi": "Viettel"}, {"id": None}],
        "codes": [
            {
                "code": -118,
                "meaning_en": "No such account",
                "meaning_vi": "Không có tài khoản",
                "category": "recipient",
                "retryable": False,
                "who_can_fix": "nobody",
            },
            {"code": -31337},
        ],
        "delivery": keys | {"telco": [0, 1], "cost": [24_000, 6_000.5]} | outcomes,
        "reasons": keys | {"telco": [0, 1], "code": [0, 1], "messages": [15, 30]},
        "maturity": keys | aged,
        "backlog": [backlog],
        "runs": [run | {"started_at": "2026-01-08T00:00:00+00:00"}],
    } | changes


class Browser:
    """Chromium with a profile of its own, opening files only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(
        self, made: dict[str, Any], actions: str = "", *options: str
    ) -> tuple[dict[str, Any], str, list[str]]:
        """Open the page of some figures and do something there.

        Returns:
            What the actions put into ``seen``, the DOM, and the console's lines.
        """
        probe = PROBE.replace("ACTIONS", actions)
        path = self._folder / "page.html"
        path.write_text(make_page(made).replace("</body>", probe), encoding="utf-8")
        assert CHROMIUM
        ended = subprocess.run(
            [
                CHROMIUM,
                *OPTIONS,
                f"--user-data-dir={self._folder / 'profile'}",
                *options,
                "--dump-dom",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        text = re.search(r'<pre id="probe">(.*?)</pre>', ended.stdout, re.DOTALL)
        assert text
        console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
        return json.loads(text[1] or "{}"), ended.stdout, console


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A browser."""
    return Browser(tmp_path)


def test_it_opens_without_a_word_on_the_console(browser: Browser) -> None:
    """Every chart is drawn and every table filled, and nothing is complained of."""
    seen, dom, console = browser.open(
        small_figures(),
        "look('all');"
        "seen.charts = Object.values(Chart.instances).map((c) => c.canvas.id).sort();"
        "seen.rows = document.querySelectorAll('tbody tr').length;",
    )
    assert console == []
    assert seen["all"]["sent"] == "150"
    assert seen["all"]["rateFinal"] == "69.0%"
    assert seen["charts"] == [
        "chart-cost",
        "chart-funnel",
        "chart-maturity",
        "chart-reasons",
        "chart-time",
    ]
    assert seen["rows"] == 8
    assert "&lt;b&gt;&amp;" in dom


@pytest.mark.parametrize(
    ("action", "sent", "delivered"),
    [
        ("set('oa', '0')", "100", "80"),
        ("set('template', '1')", "50", "20"),
        ("set('from', '2026-01-07')", "50", "20"),
        ("set('to', '2026-01-06')", "100", "80"),
    ],
)
def test_a_filter_changes_all_figures(
    browser: Browser, action: str, sent: str, delivered: str
) -> None:
    """Tiles, charts and tables show what the filter lets through; a reset all."""
    seen, _, console = browser.open(
        small_figures(),
        f"{action}; look('some');"
        "const bars = (id) => Chart.getChart(id).data;"
        "seen.days = bars('chart-time').labels.length;"
        "seen.maturity = bars('chart-maturity').datasets[0].data;"
        "seen.codes = document.querySelectorAll('#table-reasons tbody tr').length;"
        "seen.telcos = document.querySelectorAll('#table-telcos tbody tr').length;"
        "document.querySelector('[type=reset]').click(); await pause(); look('all');",
    )
    assert console == []
    assert (seen["some"]["sent"], seen["some"]["delivered"]) == (sent, delivered)
    assert (seen["codes"], seen["telcos"]) == (1, 1)
    assert {0.9: "100", 0.5: "50"}[max(filter(None, seen["maturity"]))] == sent
    assert seen["all"]["sent"] == "150"


def test_charts_answer_the_pointer(browser: Browser) -> None:
    """A pointer over a bar brings a tooltip with its figures."""
    seen, _, _ = browser.open(
        small_figures(),
        "const chart = Chart.getChart('chart-time'), box = chart.canvas"
        ".getBoundingClientRect(), bar = chart.getDatasetMeta(0).data[0];"
        "chart.canvas.dispatchEvent(new MouseEvent('mousemove', {bubbles: true,"
        " clientX: box.x + bar.x, clientY: box.y + bar.y + 5})); await pause();"
        "seen.opacity = chart.tooltip.opacity;"
        "seen.lines = chart.tooltip.body.flatMap((part) => part.lines);",
    )
    assert seen["opacity"] == 1
    assert "Delivered: 80" in seen["lines"]


def test_a_table_sorts_by_click(browser: Browser) -> None:
    """A click on a title sorts by it, another one the other way round."""
    seen, _, _ = browser.open(
        small_figures(),
        "const codes = () => [...document.querySelectorAll("
        "'#table-reasons tbody tr')].map((row) => row.cells[0].textContent);"
        "const click = () => document.querySelectorAll("
        "'#table-reasons th button')[5].click();"
        "seen.first = codes(); click(); seen.then = codes(); click();"
        "seen.last = codes();",
    )
    assert seen["first"] == ["-31337", "-118"]
    assert seen["then"] == ["-118", "-31337"]
    assert seen["last"] == seen["first"]


def test_it_speaks_vietnamese_and_has_a_dark_side(browser: Browser) -> None:
    """The buttons change the language of all texts, and the colours."""
    colour = "getComputedStyle(document.body).backgroundColor"
    seen, dom, console = browser.open(
        small_figures(),
        f"seen.light = {colour};"
        "document.getElementById('language').click();"
        "document.getElementById('theme').click();"
        f"seen.dark = {colour}; seen.language = document.documentElement.lang;",
    )
    assert console == []
    assert seen["light"] != seen["dark"]
    assert seen["language"] == "vi"
    assert "Không có tài khoản" in dom
    assert "Kết quả gửi tin Zalo" in dom
    assert "No such account</td>" not in dom


def test_it_fits_a_phone(browser: Browser) -> None:
    """Nothing but a table scrolls sideways on a narrow screen."""
    # A window of Chromium isn't narrower than 500; a frame is.
    seen, _, _ = browser.open(
        small_figures(),
        "const frame = document.createElement('iframe'); frame.width = 360;"
        "frame.srcdoc = document.documentElement.outerHTML"
        ".replace(/<pre id=.probe[^]*/, ''); document.body.append(frame);"
        "await new Promise((done) => { frame.onload = done; });"
        "seen.width = frame.contentDocument.documentElement.scrollWidth;"
        "seen.text = frame.contentDocument.querySelector('.tile b').textContent;",
    )
    assert seen["width"] <= 360
    assert seen["text"] == "150"


def test_an_empty_dataset_says_so(browser: Browser) -> None:
    """Without a message there is a sentence in place of charts."""
    keys = ("day", "oa", "template", "telco", "code", "messages", "cost")
    empty: dict[str, list[Any]] = {name: [] for name in keys}
    lists: dict[str, Any] = {
        name: []
        for name in ("days", "oas", "templates", "telcos", "codes", "backlog", "runs")
    }
    cubes = dict.fromkeys(figures.CUBES, empty)
    seen, dom, console = browser.open(
        small_figures(**lists, **cubes),
        "const said = document.getElementById('empty');"
        "seen.said = said.checkVisibility() && said.textContent;",
    )
    assert console == []
    assert "esms run" in seen["said"]
    assert "NaN" not in dom.partition("<script")[0]


def test_it_follows_the_system_into_the_dark(browser: Browser) -> None:
    """Where the system prefers dark, the page begins dark."""
    option = "--blink-settings=preferredColorScheme=0"
    seen, _, _ = browser.open(
        small_figures(),
        "seen.prefers = matchMedia('(prefers-color-scheme: dark)').matches;"
        "seen.theme = document.documentElement.dataset.theme;",
        option,
    )
    assert seen == {"prefers": True, "theme": "dark"}


def test_the_policy_of_the_page_forbids_the_network(browser: Browser) -> None:
    """Even a script in it couldn't send the figures anywhere."""
    _, _, console = browser.open(
        small_figures(), "await fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    assert any("Content Security Policy" in line for line in console)
