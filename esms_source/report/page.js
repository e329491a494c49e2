/* Draws charts and tables of the sums. */
const COLOURS = {
  delivered: "#2e9e5b", partial: "#9ac23c", failed: "#d9483b", pending: "#e8a33d",
  missing: "#8d99a8", unanswered: "#8a63c9", expired: "#566070",
};
// Of telcos and lines: none of them is one of an outcome.
const SERIES = ["#0b72d6", "#1aa3a3", "#c2569b", "#7a5c3e", "#5a6fd8", "#3f7f93", "#a8479e", "#6b7280", "#b08d57"];

let language = (navigator.language || "en").startsWith("vi") ? "vi" : "en";
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const charts = {};
const sorting = {};

const t = (key, ...values) => values.reduce((text, value) => text.replace("{}", value), TEXTS[language][key]);
const locale = () => (language === "vi" ? "vi-VN" : "en-GB");
const count = (n) => Math.round(n).toLocaleString(locale());
const decimal = (n) => (n === null ? "–" : n.toLocaleString(locale(), { maximumFractionDigits: 1 }));
const percent = (n) => (n === null ? "–" : n.toLocaleString(locale(), { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }));
const dateText = (day) => (language === "vi" ? day.split("-").reverse().join("/") : day);
const MOMENT = { day: "2-digit", month: "2-digit", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const moment = (text) => {
  if (!text) return "–";
  const parts = new Intl.DateTimeFormat("en-GB", { ...MOMENT, timeZone: D.timezone }).formatToParts(new Date(text));
  const { day, month, year, hour, minute } = Object.fromEntries(parts.map((part) => [part.type, part.value]));
  return `${dateText(`${year}-${month}-${day}`)} ${hour}:${minute}`;
};
const word = (text) => (!text || text === "unknown" ? t("unknown") : language === "vi" ? WORDS_VI[text] || text : text.replaceAll("_", " "));

const valueName = (key) => (key === "" ? t("unknown") : key === "other" ? t("other") : key.slice(1));
const named = (id, name) => (name ? `${name} (${id})` : id);
const oaName = (id) => named(id, D.oa_names[id]);
const templateName = (key) => named(valueName(key), D.template_names[valueName(key)]);
const telcoName = (telco) => telco[`name_${language}`] || t("unknown") + (telco.id === null ? "" : ` (${telco.id})`);
const codeName = (code) => (code.code === null ? t("noCode") : code[`meaning_${language}`] || t("unknown"));
const codeLabel = (code) => (code.code === null ? "–" : String(code.code));

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const titleOf = (id) => $(id).closest("section").querySelector("h2").textContent;

function draw(id, type, labels, datasets, { axes = {}, options = {} } = {}) {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--faint"), line = style.getPropertyValue("--grid");
  const scales = {};
  for (const [name, axis] of Object.entries(axes)) {
    const { format, all, ...rest } = axis;
    const drawn = name === "rate" ? { drawOnChartArea: false } : { color: line };
    const ticks = { color: text, maxRotation: 0, autoSkipPadding: 12, autoSkip: !all, ...(format ? { callback: format } : {}), ...(format === count ? { precision: 0 } : {}) };
    scales[name] = { ...rest, grid: drawn, border: { color: line }, ticks };
  }
  charts[id]?.destroy();
  $(id).ariaLabel = titleOf(id);
  charts[id] = new Chart($(id), {
    type, data: { labels, datasets },
    options: {
      animation: false, maintainAspectRatio: false, scales,
      interaction: { mode: "index", intersect: false, ...(options.indexAxis === "y" ? { axis: "y" } : {}) },
      ...options,
      plugins: {
        legend: { position: "bottom", labels: { color: text, boxWidth: 12, boxHeight: 12 }, ...options.legend },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${(item.dataset.format || count)(item.raw)}`, ...options.tooltip } },
      },
    },
  });
}

/* A text that a spreadsheet won't take for a formula; numbers stay as they are. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  const safe = typeof value === "string" && /^[=+@\t\r-]/.test(text) && !/^-?\d+$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csvOf(columns, rows) {
  const lines = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, value]) => value(row)))];
  return `\ufeff${lines.map((line) => line.map(csvCell).join(",")).join("\r\n")}\r\n`;
}

function csvButton(id, columns, rows) {
  const button = element("button", t("csv"), "csv");
  button.type = "button";
  button.ariaLabel = `${t("csv")}: ${titleOf(id)}`;
  button.onclick = () => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([csvOf(columns, rows)], { type: "text/csv;charset=utf-8" }));
    link.download = `esms-${id.replace("table-", "")}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return button;
}

/* A table whose columns are [title, value of a row, how to show it]; sorts by click. */
function table(id, columns, rows, byColumn, down = true) {
  const place = $(id);
  const order = (sorting[id] ??= { column: byColumn, down });
  const value = columns[order.column][1];
  const sorted = [...rows].sort((one, other) => {
    const a = value(one), b = value(other);
    if (a === null || b === null) return (a === null) - (b === null);
    const difference = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), locale(), { numeric: true });
    return order.down ? -difference : difference;
  });
  const made = element("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  made.createCaption().textContent = titleOf(id);
  columns.forEach(([title, , show], n) => {
    const cell = element("th", undefined, show && show !== dateText ? "number" : "");
    cell.scope = "col";
    cell.ariaSort = n === order.column ? (order.down ? "descending" : "ascending") : "none";
    const button = cell.appendChild(element("button", title));
    button.type = "button";
    button.onclick = () => {
      sorting[id] = { column: n, down: n === order.column ? !order.down : Boolean(show) };
      table(id, columns, rows, byColumn);
      place.querySelectorAll("th button")[n].focus();
    };
    head.append(cell);
  });
  for (const row of sorted) {
    const line = body.insertRow();
    columns.forEach(([, of, show], n) => {
      const content = of(row), isDate = show === dateText;
      const text = show ? show(content) : content ?? "–";
      const cell = element(n ? "td" : "th", text, show && !isDate ? "number" : String(text).length < 24 ? "short" : "long");
      if (!n) cell.scope = "row";
      line.append(cell);
    });
  }
  place.tabIndex = 0;
  place.role = "region";
  place.ariaLabel = titleOf(id);
  place.replaceChildren(...(rows.length ? [made] : [element("p", t("none"), "note")]));
  const old = place.parentElement.querySelector(`[data-of="${id}"]`);
  old?.remove();
  if (!rows.length) return;
  const bar = element("div", undefined, "bar");
  bar.dataset.of = id;
  bar.append(csvButton(id, columns, sorted));
  place.after(bar);
}

function showHeadline(all, reasons, before) {
  const noZalo = ratio(reasons.withoutZalo, all.final);
  const tiles = [
    ["sent", all.sent, count], ["delivered", all.delivered, count], ["failed", all.failed, count],
    ["withoutZalo", noZalo, percent], ["rateFinal", all.rateFinal, percent], ["rateSent", all.rateSent, percent],
    ["costTotal", all.cost, count], ["costEach", all.costEach, decimal],
  ];
  const earlier = before && {
    ...before.sums.all, costTotal: before.sums.all.cost, withoutZalo: ratio(before.reasons.withoutZalo, before.sums.all.final),
  };
  $("headline").replaceChildren(...tiles.map(([name, value, show]) => {
    const tile = element("div", undefined, "tile");
    tile.dataset.figure = name;
    tile.append(element("b", show(value)), element("span", t(name)));
    if (name === "withoutZalo") tile.lastChild.title = t("withoutZaloNote", D.without_zalo.join(", "));
    if (earlier) tile.append(element("small", t("before", show(earlier[name]))));
    return tile;
  }));
}

function showTime(labels, days) {
  const bars = D.outcomes.filter((name) => days.some((day) => day[name])).map((name) => ({
    label: t(name), data: days.map((day) => day[name]), backgroundColor: COLOURS[name], stack: "one", order: 1,
  }));
  const rate = {
    type: "line", label: t("rateFinal"), data: days.map((day) => day.rateFinal), yAxisID: "rate", format: percent,
    borderColor: SERIES[0], backgroundColor: SERIES[0], borderWidth: 2, pointRadius: days.length > 40 ? 0 : 2, order: 0,
  };
  const axes = { x: { stacked: true }, y: { stacked: true, format: count }, rate: { position: "right", min: 0, max: 1, format: percent } };
  draw("chart-time", "bar", labels.map(dateText), [...bars, rate], { axes });
  table("table-time", [
    [t("date"), (row) => row.day, dateText], [t("sent"), (row) => row.sent, count],
    ...D.outcomes.map((name) => [t(name), (row) => row[name], count]),
    [t("rateFinal"), (row) => row.rateFinal, percent], [t("rateSent"), (row) => row.rateSent, percent],
  ], days.map((day, n) => ({ ...day, day: labels[n] })), 0, false);
}

function showFunnel(all) {
  const steps = ["sent", "final", "delivered"];
  const of = (item) => `${count(item.raw)} (${percent(ratio(item.raw, all.sent))})`;
  draw("chart-funnel", "bar", steps.map((name) => t(name)), [
    { label: t("messages"), data: steps.map((name) => all[name]), backgroundColor: [SERIES[0], SERIES[1], COLOURS.delivered] },
  ], { axes: { x: { format: count }, y: {} }, options: { indexAxis: "y", legend: { display: false }, tooltip: { label: of } } });
  table("table-funnel", [
    [t("step"), (name) => t(name)], [t("messages"), (name) => all[name], count],
    [t("share"), (name) => ratio(all[name], all.sent), percent],
  ], all.sent ? steps : [], 1);
}

function showCost(labels, days, all) {
  draw("chart-cost", "bar", labels.map(dateText), [
    { label: t("costTotal"), data: days.map((day) => day.cost), backgroundColor: SERIES[1], order: 1 },
    { type: "line", label: t("costEach"), data: days.map((day) => day.costEach), yAxisID: "rate", format: decimal,
      borderColor: SERIES[2], backgroundColor: SERIES[2], borderWidth: 2, pointRadius: days.length > 40 ? 0 : 2, order: 0 },
  ], { axes: { x: {}, y: { format: count }, rate: { position: "right", min: 0, format: decimal } } });
  $("cost-note").textContent = t("costNote", `${count(all.cost_failed)} VND`, count(all.unpriced));
  table("table-cost", [
    [t("date"), (row) => row.day, dateText], [t("costTotal"), (row) => row.cost, count],
    [t("costFailed"), (row) => row.cost_failed, count], [t("unpriced"), (row) => row.unpriced, count],
    [t("costEach"), (row) => row.costEach, decimal],
  ], days.map((day, n) => ({ ...day, day: labels[n] })), 0, false);
}

function showReasons(sums) {
  const codes = [...D.codes.keys()].filter((n) => sums.code[n]).sort((a, b) => sums.code[b] - sums.code[a]);
  const top = codes.slice(0, 12);
  const series = D.telcos.map((telco, n) => ({
    label: telcoName(telco), data: top.map((code) => sums.telco[n][code]), backgroundColor: SERIES[n % SERIES.length], stack: "one",
  })).filter((one) => one.data.some(Boolean));
  draw("chart-reasons", "bar", top.map((n) => codeLabel(D.codes[n])), series, {
    axes: { x: { stacked: true, format: count }, y: { stacked: true, all: true } },
    options: { indexAxis: "y", tooltip: { title: ([item]) => `${codeLabel(D.codes[top[item.dataIndex]])}: ${codeName(D.codes[top[item.dataIndex]])}` } },
  });
  const can = (code) => (code.retryable === undefined || code.retryable === null ? t("unknown") : t(code.retryable ? "yes" : "no"));
  table("table-reasons", [
    [t("code"), (n) => codeLabel(D.codes[n])], [t("meaning"), (n) => codeName(D.codes[n])],
    [t("category"), (n) => word(D.codes[n].category)], [t("fix"), (n) => word(D.codes[n].who_can_fix)],
    [t("retry"), (n) => can(D.codes[n])], [t("messages"), (n) => sums.code[n], count],
    [t("share"), (n) => ratio(sums.code[n], sums.all), percent],
  ], codes, 5);
}

function showGroups(id, title, name, values, sums, reasons) {
  const rows = values.map((value, n) => ({ name: name(value), reasons: reasons[n], ...sums[n] })).filter((row) => row.sent);
  const top = (row) => {
    const most = Math.max(0, ...row.reasons);
    const code = D.codes[row.reasons.indexOf(most)];
    return most ? `${codeLabel(code)} ${codeName(code)}: ${count(most)}` : null;
  };
  table(id, [
    [title, (row) => row.name], ...["sent", "final", "delivered", "failed"].map((key) => [t(key), (row) => row[key], count]),
    [t("rateFinal"), (row) => row.rateFinal, percent], [t("rateSent"), (row) => row.rateSent, percent],
    [t("costTotal"), (row) => row.cost, count], [t("costFailed"), (row) => row.cost_failed, count],
    [t("costEach"), (row) => row.costEach, decimal], [t("top"), top],
  ], rows, 1);
}

function showMaturity(labels, days) {
  draw("chart-maturity", "line", labels.map(dateText), D.ages.map((age, n) => ({
    label: t("after", age), data: days.map((day) => day[n]), format: percent, borderColor: SERIES[n],
    backgroundColor: SERIES[n], borderWidth: 2, pointRadius: days.length > 40 ? 0 : 2,
  })), { axes: { x: {}, y: { min: 0, max: 1, format: percent } } });
  table("table-maturity", [
    [t("date"), (row) => row.day, dateText], ...D.ages.map((age, n) => [t("after", age), (row) => row.ages[n], percent]),
  ], days.map((ages, n) => ({ ages, day: labels[n] })), 0, false);
}

function showHours(hours) {
  draw("chart-hours", "bar", hours.map((row) => String(row.hour)), [
    { label: t("sent"), data: hours.map((row) => row.sent), backgroundColor: SERIES[4], order: 1 },
    { type: "line", label: t("rateFinal"), data: hours.map((row) => row.rateFinal), yAxisID: "rate", format: percent,
      borderColor: SERIES[2], backgroundColor: SERIES[2], borderWidth: 2, pointRadius: 2, order: 0 },
  ], { axes: { x: {}, y: { format: count }, rate: { position: "right", min: 0, max: 1, format: percent } } });
  table("table-hours", [
    [t("hour"), (row) => row.hour, String], ...["sent", "final", "delivered"].map((key) => [t(key), (row) => row[key], count]),
    [t("rateFinal"), (row) => row.rateFinal, percent],
  ], hours.filter((row) => row.sent), 0, false);
}

function showBacklog() {
  const oa = $("oa").value === "" ? null : D.oas[+$("oa").value];
  table("table-backlog", [
    [t("oa"), (row) => oaName(row.oa_id)], [t("due"), (row) => row.due, count], [t("waiting"), (row) => row.waiting, count],
    [t("oldest"), (row) => row.oldest_due_at, moment], [t("next"), (row) => row.next_due_at, moment],
    [t("requests"), (row) => row.requests, count], [t("hoursOfApi"), (row) => row.api_hours, decimal],
  ], D.backlog.filter((row) => oa === null || row.oa_id === oa), 1);
}

function showRuns() {
  const counts = [["requests", "requests"], ["retries", "retries"], ["asked", "asked"], ["answered", "answered"], ["missing", "missing"],
    ["unanswered", "failed"], ["rejected", "rejected"], ["unknownCodes", "unknown_codes"]];
  table("table-runs", [
    [t("started"), (row) => row.started_at, moment], [t("seconds"), (row) => row.seconds, decimal],
    [t("rate"), (row) => row.requests_per_second, decimal], [t("used"), (row) => row.rate_used, percent],
    ...counts.map(([title, key]) => [t(title), (row) => row[key], count]),
  ], D.runs, 0);
}

/* What the filters choose, in words: a printed page has no filters. */
function chosenText(before) {
  const parts = FILTERS.filter((key) => $(key).value !== "").map((key) => `${$(key).labels[0].firstChild.textContent} ${$(key).selectedOptions[0].textContent}`);
  for (const id of ["from", "to"]) if ($(id).value) parts.push(`${t(id)} ${dateText($(id).value)}`);
  if (before) parts.push(t("change", "", before.length).trim());
  return t("shown", parts.join(" · ") || t("allShown"));
}

function showFigures() {
  const { days, isChosen } = choose($("from").value, $("to").value);
  const only = (values) => values.filter((_, n) => days[n]);
  const labels = only(D.days), sums = addUp(isChosen), reasons = addUpReasons(isChosen);
  const before = periodBefore();
  if (before) Object.assign(before, { sums: addUp(before.isChosen), reasons: addUpReasons(before.isChosen) });
  $("chosen").textContent = chosenText(before);
  showHeadline(sums.all, reasons, before);
  showTime(labels, only(sums.day));
  showFunnel(sums.all);
  $("missing-note").textContent = sums.all.missing && !D.asks_missing ? t("missingNote", count(sums.all.missing)) : "";
  showCost(labels, only(sums.day), sums.all);
  showReasons(reasons);
  D.carried.forEach((name, n) => {
    const key = carriedKeys[n];
    showGroups(`table-${key}`, name, valueName, D.values[n], sums[key], reasons[key]);
  });
  showGroups("table-telcos", t("telco"), telcoName, D.telcos, sums.telco, reasons.telco);
  showGroups("table-templates", t("template"), templateName, D.templates, sums.template, reasons.template);
  showHours(addUpHours(isChosen));
  showMaturity(labels, only(addUpMaturity(isChosen)));
  showBacklog();
}
