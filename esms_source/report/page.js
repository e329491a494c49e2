"use strict";
(() => {
const D = JSON.parse(document.getElementById("figures").textContent);
const $ = (id) => document.getElementById(id);

const TEXTS = {
  en: {
    title: "Zalo message delivery", theme: "Light / dark", language: "Tiếng Việt",
    oa: "OA", template: "Template", from: "From", to: "To", reset: "Show all", all: "All",
    empty: "There are no messages in this dataset yet. Load some with: esms run",
    overTime: "Delivery over time", funnel: "From sent to delivered", cost: "Cost",
    reasons: "Why messages failed", byTelco: "By telco", byTemplate: "By template",
    maturity: "How soon results are final", backlog: "Still to be asked", runs: "The last runs",
    maturityNote: "Share of messages with a final result so long after sending, as polling saw it; shown for days that are over for that long.",
    backlogNote: "As of when the page was made. The OA filter applies, template and dates don't.",
    runsNote: "Times are in the page's time zone. A run asks for all OAs and templates, so no filter applies.",
    footer: "Counts are RefIds, each once. A day is the day of sending. Charts: Chart.js, MIT licence.",
    sent: "Sent", final: "Final", delivered: "Delivered", partial: "Partly delivered", failed: "Failed",
    pending: "Pending", missing: "No result yet", unanswered: "Request failed", expired: "Given up",
    rateFinal: "Delivered of final", rateSent: "Delivered of sent", costTotal: "Cost (VND)",
    costEach: "Cost per delivered (VND)", code: "Code", meaning: "Meaning", category: "About",
    fix: "Who can fix it", retry: "Sending again can help", messages: "Messages", share: "Share",
    telco: "Telco", top: "Most frequent reason", unknown: "unknown", noCode: "no code", other: "other templates",
    due: "Due now", waiting: "Waiting", oldest: "Oldest due since", next: "Next due", requests: "Requests",
    hours: "API hours", started: "Started", seconds: "Seconds", attempts: "Attempts", retries: "Retries",
    rate: "Requests per second", used: "Rate used", asked: "Asked", answered: "Answered", rejected: "Rejected rows",
    unknownCodes: "Unknown codes", yes: "yes", no: "no", after: "after {} h", none: "Nothing here.",
    made: "Dataset {}, made {}, days in {}", day: "One bar is a day.", week: "One bar is a week; dates select whole weeks.",
    month: "One bar is a month; dates select whole months.", year: "One bar is a year; dates select whole years.",
  },
  vi: {
    title: "Kết quả gửi tin Zalo", theme: "Sáng / tối", language: "English",
    oa: "OA", template: "Mẫu tin", from: "Từ ngày", to: "Đến ngày", reset: "Xem tất cả", all: "Tất cả",
    empty: "Chưa có tin nào trong bộ dữ liệu này. Hãy nạp bằng lệnh: esms run",
    overTime: "Kết quả gửi theo thời gian", funnel: "Từ gửi đi đến tới nơi", cost: "Chi phí",
    reasons: "Vì sao tin thất bại", byTelco: "Theo nhà mạng", byTemplate: "Theo mẫu tin",
    maturity: "Bao lâu thì có kết quả cuối", backlog: "Còn phải hỏi", runs: "Các lần chạy gần nhất",
    maturityNote: "Tỷ lệ tin đã có kết quả cuối sau chừng ấy giờ kể từ lúc gửi, theo các lần hỏi; chỉ hiện với ngày đã qua chừng ấy giờ.",
    backlogNote: "Tính tại lúc tạo trang. Bộ lọc OA có tác dụng, mẫu tin và ngày thì không.",
    runsNote: "Giờ theo múi giờ của trang. Một lần chạy hỏi cho mọi OA và mẫu tin nên bộ lọc không tác dụng.",
    footer: "Số đếm là RefId, mỗi RefId một lần. Ngày là ngày gửi. Biểu đồ: Chart.js, giấy phép MIT.",
    sent: "Đã gửi", final: "Có kết quả cuối", delivered: "Tới nơi", partial: "Tới một phần", failed: "Thất bại",
    pending: "Đang chờ", missing: "Chưa có kết quả", unanswered: "Yêu cầu lỗi", expired: "Đã bỏ qua",
    rateFinal: "Tới nơi / kết quả cuối", rateSent: "Tới nơi / đã gửi", costTotal: "Chi phí (VND)",
    costEach: "Chi phí mỗi tin tới nơi (VND)", code: "Mã", meaning: "Ý nghĩa", category: "Liên quan đến",
    fix: "Ai khắc phục được", retry: "Gửi lại có ích", messages: "Số tin", share: "Tỷ lệ",
    telco: "Nhà mạng", top: "Lý do nhiều nhất", unknown: "không rõ", noCode: "không có mã", other: "các mẫu khác",
    due: "Cần hỏi ngay", waiting: "Đang đợi", oldest: "Cũ nhất từ", next: "Lượt kế tiếp", requests: "Yêu cầu",
    hours: "Số giờ API", started: "Bắt đầu", seconds: "Giây", attempts: "Lần thử", retries: "Thử lại",
    rate: "Yêu cầu mỗi giây", used: "Tốc độ đã dùng", asked: "Đã hỏi", answered: "Có trả lời", rejected: "Dòng bị loại",
    unknownCodes: "Mã lạ", yes: "có", no: "không", after: "sau {} giờ", none: "Không có gì.",
    made: "Bộ dữ liệu {}, tạo lúc {}, ngày theo {}", day: "Mỗi cột là một ngày.", week: "Mỗi cột là một tuần; ngày chọn trọn tuần.",
    month: "Mỗi cột là một tháng; ngày chọn trọn tháng.", year: "Mỗi cột là một năm; ngày chọn trọn năm.",
  },
};
// Values of the columns category and who_can_fix of error_codes.
const WORDS_VI = {
  recipient: "người nhận", content: "nội dung", quota: "hạn mức", permission: "quyền", system: "hệ thống",
  credentials: "khóa truy cập", success: "thành công", balance: "số dư", template: "mẫu tin", request: "yêu cầu gửi",
  schedule: "giờ gửi", nobody: "không ai", developer: "lập trình viên", sender: "bên gửi", oa_admin: "quản trị viên OA",
  zalo: "Zalo", esms: "eSMS",
};
const COLOURS = {
  delivered: "#2e9e5b", partial: "#9ac23c", failed: "#d9483b", pending: "#e8a33d",
  missing: "#8d99a8", unanswered: "#8a63c9", expired: "#566070",
};
const SERIES = ["#0b72d6", "#e8a33d", "#2e9e5b", "#8a63c9", "#d9483b", "#1aa3a3", "#8d99a8", "#c2569b"];

let language = (navigator.language || "en").startsWith("vi") ? "vi" : "en";
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const charts = {};
const sorting = {};

const t = (key, ...values) => values.reduce((text, value) => text.replace("{}", value), TEXTS[language][key]);
const locale = () => (language === "vi" ? "vi-VN" : "en-GB");
const count = (n) => Math.round(n).toLocaleString(locale());
const decimal = (n) => (n === null ? "–" : n.toLocaleString(locale(), { maximumFractionDigits: 1 }));
const percent = (n) => (n === null ? "–" : n.toLocaleString(locale(), { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }));
const moment = (text) => (text ? new Date(text).toLocaleString(locale(), { timeZone: D.timezone, dateStyle: "short", timeStyle: "short" }) : "–");
const ratio = (part, whole) => (whole ? part / whole : null);
const word = (text) => (!text || text === "unknown" ? t("unknown") : language === "vi" ? WORDS_VI[text] || text : text.replaceAll("_", " "));

const templateName = (key) => (key === "" ? t("unknown") : key === "other" ? t("other") : key.slice(1));
const telcoName = (telco) => telco[`name_${language}`] || t("unknown") + (telco.id === null ? "" : ` (${telco.id})`);
const codeName = (code) => (code.code === null ? t("noCode") : code[`meaning_${language}`] || t("unknown"));
const codeLabel = (code) => (code.code === null ? "–" : String(code.code));

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function endOf(day) {
  const date = new Date(`${day}T00:00:00Z`);
  if (D.unit === "week") date.setUTCDate(date.getUTCDate() + 6);
  if (D.unit === "month") date.setUTCMonth(date.getUTCMonth() + 1, 0);
  if (D.unit === "year") date.setUTCMonth(12, 0);
  return date.toISOString().slice(0, 10);
}

/* Whether a day is over for so many hours, so that its share won't change by waiting. */
const isMature = (day, age) => Date.parse(`${endOf(day)}T00:00:00Z`) + (24 + age) * 3_600_000 <= Date.parse(`${D.local_time}Z`);

/* Which of a cube's rows the filters let through, as a test by row number. */
function chosen() {
  const oa = $("oa").value, template = $("template").value, from = $("from").value, to = $("to").value;
  const days = D.days.map((day) => (!from || endOf(day) >= from) && (!to || day <= to));
  const isChosen = (cube) => (i) => days[cube.day[i]] && (oa === "" || cube.oa[i] === +oa) && (template === "" || cube.template[i] === +template);
  return { days, isChosen };
}

const zeros = () => ({ sent: 0, cost: 0, ...Object.fromEntries(D.outcomes.map((name) => [name, 0])) });

function addUp(isChosen) {
  const sums = { all: zeros(), day: D.days.map(zeros), template: D.templates.map(zeros), telco: D.telcos.map(zeros) };
  const cube = D.delivery, test = isChosen(cube);
  for (let i = 0; i < cube.day.length; i++) {
    if (!test(i)) continue;
    const targets = [sums.all, sums.day[cube.day[i]], sums.template[cube.template[i]], sums.telco[cube.telco[i]]];
    for (const name of [...D.outcomes, "cost"]) {
      const value = cube[name][i];
      if (!value) continue;
      for (const target of targets) {
        target[name] += value;
        if (name !== "cost") target.sent += value;
      }
    }
  }
  for (const sum of [sums.all, ...sums.day, ...sums.template, ...sums.telco]) {
    sum.final = sum.delivered + sum.partial + sum.failed;
    sum.rateFinal = ratio(sum.delivered, sum.final);
    sum.rateSent = ratio(sum.delivered, sum.sent);
    sum.costEach = ratio(sum.cost, sum.delivered);
  }
  return sums;
}

const grid = (rows, columns) => Array.from({ length: rows }, () => new Array(columns).fill(0));

function addUpReasons(isChosen) {
  const cube = D.reasons, test = isChosen(cube), codes = D.codes.length;
  const sums = { all: 0, code: new Array(codes).fill(0), telco: grid(D.telcos.length, codes), template: grid(D.templates.length, codes) };
  for (let i = 0; i < cube.day.length; i++) {
    if (!test(i)) continue;
    const code = cube.code[i], messages = cube.messages[i];
    sums.all += messages;
    sums.code[code] += messages;
    sums.telco[cube.telco[i]][code] += messages;
    sums.template[cube.template[i]][code] += messages;
  }
  return sums;
}

function addUpMaturity(isChosen) {
  const cube = D.maturity, test = isChosen(cube);
  const days = D.days.map((day) => D.ages.map((age) => [0, 0, isMature(day, age)]));
  for (let i = 0; i < cube.day.length; i++) {
    if (!test(i)) continue;
    D.ages.forEach((age, n) => {
      days[cube.day[i]][n][0] += cube[`final_${age}`][i];
      days[cube.day[i]][n][1] += cube.timed[i];
    });
  }
  return days;
}

function draw(id, type, labels, datasets, { axes = {}, options = {} } = {}) {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--faint"), line = style.getPropertyValue("--grid");
  const scales = {};
  for (const [name, axis] of Object.entries(axes)) {
    const { format, all, ...rest } = axis;
    const drawn = name === "rate" ? { drawOnChartArea: false } : { color: line };
    const ticks = { color: text, maxRotation: 0, autoSkipPadding: 12, autoSkip: !all, ...(format ? { callback: format } : {}) };
    scales[name] = { ...rest, grid: drawn, border: { color: line }, ticks };
  }
  charts[id]?.destroy();
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

/* A table whose columns are [title, value of a row, how to show it]; sorts by click. */
function table(id, columns, rows, byColumn) {
  const place = $(id);
  const order = (sorting[id] ??= { column: byColumn, down: true });
  const value = columns[order.column][1];
  const sorted = [...rows].sort((one, other) => {
    const a = value(one), b = value(other);
    if (a === null || b === null) return (a === null) - (b === null);
    const difference = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), locale(), { numeric: true });
    return order.down ? -difference : difference;
  });
  const made = element("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  columns.forEach(([title, , show], n) => {
    const cell = element("th", undefined, show ? "number" : "");
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
    for (const [, of, show] of columns) {
      const content = of(row);
      line.append(element("td", show ? show(content) : content ?? "–", show ? "number" : String(content).length < 24 ? "short" : "long"));
    }
  }
  place.replaceChildren(rows.length ? made : element("p", t("none"), "note"));
}

function showHeadline(all) {
  const tiles = [
    ["sent", count(all.sent)], ["delivered", count(all.delivered)], ["failed", count(all.failed)],
    ["rateFinal", percent(all.rateFinal)], ["rateSent", percent(all.rateSent)],
    ["costTotal", count(all.cost)], ["costEach", decimal(all.costEach)],
  ];
  $("headline").replaceChildren(...tiles.map(([name, text]) => {
    const tile = element("div", undefined, "tile");
    tile.dataset.figure = name;
    tile.append(element("b", text), element("span", t(name)));
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
  draw("chart-time", "bar", labels, [...bars, rate], { axes });
}

function showFunnel(all) {
  const steps = ["sent", "final", "delivered"];
  const of = (item) => `${count(item.raw)} (${percent(ratio(item.raw, all.sent))})`;
  draw("chart-funnel", "bar", steps.map((name) => t(name)), [
    { label: t("messages"), data: steps.map((name) => all[name]), backgroundColor: [SERIES[0], SERIES[5], COLOURS.delivered] },
  ], { axes: { x: { format: count }, y: {} }, options: { indexAxis: "y", legend: { display: false }, tooltip: { label: of } } });
}

function showCost(labels, days) {
  draw("chart-cost", "bar", labels, [
    { label: t("costTotal"), data: days.map((day) => day.cost), backgroundColor: SERIES[5], order: 1 },
    { type: "line", label: t("costEach"), data: days.map((day) => day.costEach), yAxisID: "rate", format: decimal,
      borderColor: SERIES[1], backgroundColor: SERIES[1], borderWidth: 2, pointRadius: days.length > 40 ? 0 : 2, order: 0 },
  ], { axes: { x: {}, y: { format: count }, rate: { position: "right", min: 0, format: decimal } } });
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
    [t("costTotal"), (row) => row.cost, count], [t("costEach"), (row) => row.costEach, decimal], [t("top"), top],
  ], rows, 1);
}

function showMaturity(labels, days) {
  draw("chart-maturity", "line", labels, D.ages.map((age, n) => ({
    label: t("after", age), data: days.map((day) => (day[n][2] ? ratio(day[n][0], day[n][1]) : null)), format: percent, borderColor: SERIES[n],
    backgroundColor: SERIES[n], borderWidth: 2, pointRadius: days.length > 40 ? 0 : 2,
  })), { axes: { x: {}, y: { min: 0, max: 1, format: percent } } });
}

function showBacklog() {
  const oa = $("oa").value === "" ? null : D.oas[+$("oa").value];
  table("table-backlog", [
    [t("oa"), (row) => row.oa_id], [t("due"), (row) => row.due, count], [t("waiting"), (row) => row.waiting, count],
    [t("oldest"), (row) => row.oldest_due_at, moment], [t("next"), (row) => row.next_due_at, moment],
    [t("requests"), (row) => row.requests, count], [t("hours"), (row) => row.api_hours, decimal],
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

function showFigures() {
  const { days, isChosen } = chosen();
  const only = (values) => values.filter((_, n) => days[n]);
  const labels = only(D.days), sums = addUp(isChosen), reasons = addUpReasons(isChosen);
  showHeadline(sums.all);
  showTime(labels, only(sums.day));
  showFunnel(sums.all);
  showCost(labels, only(sums.day));
  showReasons(reasons);
  showGroups("table-telcos", t("telco"), telcoName, D.telcos, sums.telco, reasons.telco);
  showGroups("table-templates", t("template"), templateName, D.templates, sums.template, reasons.template);
  showMaturity(labels, only(addUpMaturity(isChosen)));
  showBacklog();
}

function fill(id, names) {
  const select = $(id), kept = select.value;
  select.replaceChildren(new Option(t("all"), ""), ...names.map((name, n) => new Option(name, n)));
  select.value = kept;
}

function show() {
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  for (const place of document.querySelectorAll("[data-t]")) place.textContent = t(place.dataset.t);
  document.title = t("title");
  $("language").textContent = t("language");
  $("subtitle").textContent = t("made", D.dataset, moment(D.generated_at), D.timezone);
  $("unit").textContent = t(D.unit);
  fill("oa", D.oas);
  fill("template", D.templates.map(templateName));
  const isEmpty = !D.days.length;
  $("empty").hidden = !isEmpty;
  $("filters").hidden = isEmpty;
  for (const section of document.querySelectorAll("main > section")) section.hidden = isEmpty && !section.querySelector("#table-runs");
  if (!isEmpty) showFigures();
  showRuns();
}

const [first, last] = [D.days[0], D.days.length ? endOf(D.days[D.days.length - 1]) : ""];
for (const id of ["from", "to"]) Object.assign($(id), { min: first ?? "", max: last });
$("filters").addEventListener("input", showFigures);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(showFigures));
$("language").onclick = () => { language = language === "en" ? "vi" : "en"; show(); };
$("theme").onclick = () => { dark = !dark; show(); };
show();
})();
