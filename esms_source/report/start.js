/* Filters, buttons and printing: what makes the page show anew. */
const LAST_DAYS = [7, 30, 90];

/* A filter and a section for each carried column. */
D.carried.forEach((name, n) => {
  const key = carriedKeys[n];
  const label = element("label"), select = element("select");
  select.id = key;
  label.append(element("span", name), select);
  $("template").closest("label").after(label);
  const section = element("section", undefined, "wide"), title = element("h2");
  title.dataset.by = name;
  const place = element("div", undefined, "table");
  place.id = `table-${key}`;
  section.append(title, place);
  $("table-telcos").closest("section").before(section);
});

function fill(id, names) {
  const select = $(id), kept = select.value;
  select.replaceChildren(new Option(t("all"), ""), ...names.map((name, n) => new Option(name, n)));
  select.value = kept;
}

function fillPeriod() {
  const select = $("period"), kept = select.value;
  const some = [["", t("all")], ...LAST_DAYS.map((days) => [String(days), t("lastDays", days)]), ["own", t("chosenDays")]];
  select.replaceChildren(...some.map(([value, text]) => new Option(text, value)));
  select.value = kept;
}

function setPeriod() {
  const days = $("period").value, newest = D.days[D.days.length - 1];
  if (days === "own") return;
  $("to").value = days ? endOf(newest) : "";
  $("from").value = days ? plusDays(endOf(newest), 1 - Number(days)) : "";
}

function show() {
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  for (const place of document.querySelectorAll("[data-t]")) place.textContent = t(place.dataset.t);
  for (const place of document.querySelectorAll("[data-by]")) place.textContent = t("byValue", place.dataset.by);
  document.title = t("title");
  $("headline").ariaLabel = t("headline");
  $("filters").ariaLabel = t("filters");
  $("language").textContent = t("language");
  $("subtitle").textContent = t("made", D.dataset, moment(D.generated_at), D.timezone);
  $("unit").textContent = t(D.unit);
  fill("oa", D.oas.map(oaName));
  fill("template", D.templates.map(templateName));
  carriedKeys.forEach((key, n) => fill(key, D.values[n].map(valueName)));
  fillPeriod();
  const isEmpty = !D.days.length;
  $("empty").hidden = !isEmpty;
  $("filters").hidden = isEmpty;
  for (const section of document.querySelectorAll("main > section")) section.hidden = isEmpty && !section.querySelector("#table-runs");
  if (!isEmpty) showFigures();
  showRuns();
}

/* Print in light colours, each chart as wide as the paper. */
let wasDark = false;
const PAPER = 660;
window.addEventListener("beforeprint", () => {
  wasDark = dark;
  dark = false;
  show();
  for (const chart of Object.values(charts)) chart.resize(PAPER, 260);
});
window.addEventListener("afterprint", () => { dark = wasDark; show(); });

const [first, last] = [D.days[0], D.days.length ? endOf(D.days[D.days.length - 1]) : ""];
for (const id of ["from", "to"]) {
  Object.assign($(id), { min: first ?? "", max: last });
  $(id).addEventListener("input", () => { $("period").value = "own"; });
}
$("period").addEventListener("input", setPeriod);
$("filters").addEventListener("input", showFigures);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(showFigures));
$("language").onclick = () => { language = language === "en" ? "vi" : "en"; show(); };
$("theme").onclick = () => { dark = !dark; show(); };
show();
})();
