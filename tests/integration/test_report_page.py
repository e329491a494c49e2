"""The page in a real browser, without a network: Chromium, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.report import figures, folding, make_page

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

TO_TEXT, INFO = shutil.which("pdftotext"), shutil.which("pdfinfo")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium isn't installed: apt-get install chromium"
    ),
]

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
    outcomes = {name: [0, 0] for name in folding.OUTCOMES}
    outcomes |= {"delivered": [80, 20], "failed": [15, 30], "pending": [5, 0]}
    aged = {name: [90, 25] for name in folding.AGED} | {"timed": [100, 50]}
    keys = {"day": [0, 1], "oa": [0, 1], "template": [0, 1], "carried_0": [0, 1]}
    costs = {"cost": [24_000, 6_000.5], "cost_failed": [0, 200], "unpriced": [5, 0]}
    hours = {name: keys[name] for name in ("oa", "template", "carried_0")}
    hours |= {"hour": [8, 21], "messages": [100, 50]}
    hours |= {"final": [95, 50], "delivered": [80, 20]}
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
        "outcomes": folding.OUTCOMES,
        "ages": folding.AGES,
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
        "without_zalo": figures.WITHOUT_ZALO,
        "asks_missing": False,
        "oa_names": {"a": "Cửa hàng <A>"},
        "template_names": {"t1": "Xác nhận đơn hàng"},
        "carried": ["campaign"],
        "values": [["=spring", "=tet"]],
        "delivery": keys | {"telco": [0, 1]} | costs | outcomes,
        "hours": hours,
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
        self, made: dict[str, Any], actions: str = "", *options: str, script: str = ""
    ) -> tuple[dict[str, Any], str, list[str]]:
        """Open the page of some figures and do something there.

        Args:
            made: The figures.
            actions: JavaScript that fills ``seen``.
            *options: More of Chromium's own.
            script: JavaScript that is there before.

        Returns:
            What the actions put into ``seen``, the DOM, and the console's lines.
        """
        probe = f"<script>{script}</script>" + PROBE.replace("ACTIONS", actions)
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
        return json.loads(unescape(text[1]) or "{}"), ended.stdout, console


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
        "chart-hours",
        "chart-maturity",
        "chart-reasons",
        "chart-time",
    ]
    assert seen["rows"] == 21
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


def empty_figures() -> dict[str, Any]:
    """Return the figures of a dataset without a message."""
    keys = ("day", "oa", "template", "telco", "code", "hour", "messages", "cost")
    empty: dict[str, list[Any]] = {name: [] for name in keys}
    lists: dict[str, Any] = {
        name: []
        for name in ("days", "oas", "templates", "telcos", "codes", "backlog", "runs")
    } | {"values": [[]]}
    return small_figures(**lists, **dict.fromkeys(folding.CUBES, empty))


def test_an_empty_dataset_says_so(browser: Browser) -> None:
    """Without a message there is a sentence in place of charts."""
    seen, dom, console = browser.open(
        empty_figures(),
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


ACCESSIBLE = """
const name = (one) => one.ariaLabel || one.getAttribute('aria-label');
seen.charts = [...document.querySelectorAll('canvas')]
  .filter((one) => one.getAttribute('role') !== 'img' || !name(one)
    || !one.closest('section').querySelector('table')).map((one) => one.id);
seen.tables = [...document.querySelectorAll('table')].filter((one) =>
  !one.caption?.textContent || !one.querySelector('thead th[scope=col]')
  || [...one.tBodies[0].rows].some((row) => row.cells[0].scope !== 'row'))
  .map((one) => one.parentElement.id);
seen.places = [...document.querySelectorAll('.table')].filter((one) =>
  one.tabIndex !== 0 || one.getAttribute('role') !== 'region' || !name(one))
  .map((one) => one.id);
seen.fields = [...document.querySelectorAll('select, input')]
  .filter((one) => !one.labels[0]?.textContent.trim()).map((one) => one.id);
seen.buttons = [...document.querySelectorAll('button')]
  .filter((one) => !one.textContent.trim()).length;
const light = (text) => {
  const part = (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  const [red, green, blue] = text.match(/[\\d.]+/g).map((one) => part(one / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const style = (one) => getComputedStyle(one);
for (const theme of ['first', 'second']) {
  const ground = style(document.body).backgroundColor;
  const card = style(document.querySelector('.tile')).backgroundColor;
  seen[theme] = {
    borders: Math.min(...[
      ...document.querySelectorAll('.csv, select, input, .buttons *')]
      .flatMap((one) => [ground, card]
        .map((c) => contrast(style(one).borderColor, c)))),
    texts: Math.min(...[
      ...document.querySelectorAll('.note, .tile span, .tile b, summary, td')]
      .flatMap((one) => [ground, card].map((c) => contrast(style(one).color, c)))),
  };
  document.getElementById('theme').click();
}
"""
"""What must hold of this page in particular, in the light and in the dark."""

AXE = """
const broken = async () => (await axe.run()).violations.flatMap((rule) =>
  rule.nodes.map((node) => `${rule.id}: ${node.html}`.slice(0, 200)));
seen.first = await broken();
document.getElementById('theme').click();
await pause();
seen.second = await broken();
document.getElementById('language').click();
await pause();
seen.vietnamese = await broken();
"""


@pytest.mark.parametrize("made", ["small", "empty"])
def test_axe_finds_nothing(browser: Browser, made: str) -> None:
    """No rule of axe-core is broken, in either theme and language."""
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    shown = small_figures() if made == "small" else empty_figures()
    seen, _, _ = browser.open(shown, AXE, script=axe)
    assert seen == {"first": [], "second": [], "vietnamese": []}


def test_names_stand_beside_ids(browser: Browser) -> None:
    """In filters and tables; what eSMS doesn't list has its id."""
    made = small_figures()
    made["delivery"]["missing"] = [7, 0]
    seen, _, console = browser.open(
        made,
        "const texts = (of) => [...document.querySelectorAll(of)]"
        ".map((one) => one.textContent);"
        "seen.oas = texts('#oa option').slice(1);"
        "seen.templates = texts('#template option').slice(1);"
        "seen.rows = texts('#table-templates tbody tr > :first-child');"
        "seen.backlog = texts('#table-backlog tbody tr > :first-child');"
        "seen.note = texts('#missing-note')[0];",
    )
    assert console == []
    assert seen["oas"] == ["Cửa hàng <A> (a)", "<b>&"]
    assert seen["templates"] == ["Xác nhận đơn hàng (t1)", "t2"]
    assert seen["rows"] == seen["templates"]
    assert seen["backlog"] == ["Cửa hàng <A> (a)"]
    assert "no result of 7 messages" in seen["note"]
    assert "ask_missing = true" in seen["note"]


def test_everybody_can_read_it(browser: Browser) -> None:
    """Charts have labels and tables, tables have headers, and borders contrast."""
    seen, _, console = browser.open(small_figures(), ACCESSIBLE)
    assert console == []
    for part in ("charts", "tables", "places", "fields"):
        assert seen[part] == [], part
    assert seen["buttons"] == 0
    for theme in ("first", "second"):
        assert seen[theme]["borders"] >= 3
        assert seen[theme]["texts"] >= 4.5


def test_a_carried_column_filters_and_splits(browser: Browser) -> None:
    """Each value has its row, and choosing one changes all figures."""
    seen, dom, console = browser.open(
        small_figures(),
        "seen.rows = [...document.querySelectorAll('#table-carried_0 tbody tr')]"
        ".map((row) => [...row.cells].slice(0, 2).map((cell) => cell.textContent));"
        "set('carried_0', '0'); look('spring');"
        "seen.hours = document.querySelectorAll('#table-hours tbody tr').length;",
    )
    assert console == []
    assert seen["rows"] == [["spring", "100"], ["tet", "50"]]
    assert (seen["spring"]["sent"], seen["hours"]) == ("100", 1)
    assert "By campaign" in dom


def test_a_period_stands_beside_the_one_before(browser: Browser) -> None:
    """Chosen days are compared with as many days just before, where those are known."""
    before = "[...document.querySelectorAll('.tile small')].map((s) => s.textContent)"
    seen, _, console = browser.open(
        small_figures(),
        f"seen.all = {before}; set('from', '2026-01-07'); seen.day = {before};"
        f"set('from', '2026-01-06'); seen.unknown = {before};"
        "set('period', '7'); seen.week = document.getElementById('from').value;",
    )
    assert console == []
    assert seen["all"] == seen["unknown"] == []
    assert seen["day"][0] == "before: 100"
    assert seen["week"] == "2026-01-01"


def test_numbers_without_zalo_measure_the_list(browser: Browser) -> None:
    """Codes of numbers that no Zalo message reaches, as a share of final results."""
    seen, _, _ = browser.open(small_figures(), "look('all');")
    assert seen["all"]["withoutZalo"] == "10.3%"


def test_every_table_can_be_saved_as_csv(browser: Browser) -> None:
    """Numbers stay numbers, and no text is a formula to a spreadsheet."""
    figures_ = small_figures(values=[["=spring", '==1+1,"x"']])
    seen, _, console = browser.open(
        figures_,
        "const texts = []; URL.createObjectURL = (blob) => { texts.push(blob.text());"
        " return '#'; }; URL.revokeObjectURL = () => {};"
        "for (const one of document.querySelectorAll('.csv')) one.click();"
        "seen.texts = await Promise.all(texts);"
        "seen.tables = document.querySelectorAll('table').length;",
    )
    assert console == []
    assert len(seen["texts"]) == seen["tables"] == 11
    carried = next(text for text in seen["texts"] if "spring" in text)
    lines = carried.removeprefix("\ufeff").split("\r\n")
    assert lines[0].startswith("campaign,Sent,Final,Delivered,Failed,")
    assert lines[1].startswith("spring,100,95,80,15,0.8421")
    assert lines[2].startswith('"\'=1+1,""x""",50,50,20,30,0.4,0.4,6000.5,200,300.025,')


def test_tiles_stand_in_full_rows_and_hold_twelve_digits(browser: Browser) -> None:
    """No tile is alone in its row, and no figure is wider than its tile."""
    large = small_figures()
    for name in ("delivered", "failed", "cost"):
        large["delivery"][name] = [value * 4_321_987_654 for value in [80, 20]]
    seen, _, _ = browser.open(
        large,
        "const tiles = [...document.querySelectorAll('.tile')]; const rows = {};"
        "for (const one of tiles) (rows[one.offsetTop] ??= []).push(one);"
        "seen.rows = Object.values(rows).map((row) => row.length);"
        "seen.wide = tiles.filter((one) => one.scrollWidth > one.clientWidth).length;"
        "seen.page = document.documentElement.scrollWidth;",
        "--window-size=1280,900",
    )
    assert seen["rows"] == [4, 4]
    assert seen["wide"] == 0
    assert seen["page"] <= 1280


def test_telcos_have_other_colours_than_outcomes(browser: Browser) -> None:
    """Green and red mean delivered and failed, in every chart."""
    seen, _, _ = browser.open(
        small_figures(),
        "const colours = (id) => Chart.getChart(id).data.datasets"
        ".filter((one) => one.stack).map((one) => one.backgroundColor);"
        "seen.time = colours('chart-time'); seen.telcos = colours('chart-reasons');",
    )
    assert len(seen["telcos"]) == 2
    assert not set(seen["time"]) & set(seen["telcos"])


def test_vietnamese_dates_are_written_as_there(browser: Browser) -> None:
    """Days and times are dd/mm/yyyy, and the words those of a marketer."""
    seen, dom, _ = browser.open(
        small_figures(),
        "document.getElementById('language').click();"
        "seen.labels = Chart.getChart('chart-time').data.labels;"
        "seen.made = document.getElementById('subtitle').textContent;",
    )
    assert seen["labels"] == ["06/01/2026", "07/01/2026"]
    assert "09/01/2026 07:00" in seen["made"]
    words = ("Gửi thành công", "Chờ tra cứu kết quả", "Nên gửi lại", "Hết hạn tra cứu")
    for text in (*words, "Lý do gửi thất bại", "Phễu gửi tin"):
        assert text in dom


@pytest.mark.skipif(TO_TEXT is None or INFO is None, reason="needs poppler-utils")
def test_paper_holds_all_columns_and_no_buttons(
    browser: Browser, tmp_path: Path
) -> None:
    """Printed on A4, tables keep their last column and buttons stay off."""
    assert TO_TEXT
    assert INFO
    path = tmp_path / "page.pdf"
    browser.open(small_figures(), "", f"--print-to-pdf={path}")
    text = subprocess.run(
        [TO_TEXT, "-raw", path, "-"], capture_output=True, text=True, check=True
    ).stdout
    for title in ("Most frequent", "Unknown codes", "API hours", "Cost of failed"):
        assert title in " ".join(text.split()), title
    assert "Show all" not in text
    assert "CSV" not in text
    assert "Shown: all messages" in text
    size = subprocess.run([INFO, path], capture_output=True, text=True, check=True)
    assert "(A4)" in size.stdout


def test_the_policy_of_the_page_forbids_the_network(browser: Browser) -> None:
    """Even a script in it couldn't send the figures anywhere."""
    _, _, console = browser.open(
        small_figures(), "await fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    assert any("Content Security Policy" in line for line in console)
