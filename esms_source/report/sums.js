/* Adds up cells by what the filters choose. A cube is columns of equal length. */
const D = JSON.parse(document.getElementById("figures").textContent);
const $ = (id) => document.getElementById(id);
const ratio = (part, whole) => (whole ? part / whole : null);
const carriedKeys = D.carried.map((_, n) => `carried_${n}`);

function endOf(day) {
  const date = new Date(`${day}T00:00:00Z`);
  if (D.unit === "week") date.setUTCDate(date.getUTCDate() + 6);
  if (D.unit === "month") date.setUTCMonth(date.getUTCMonth() + 1, 0);
  if (D.unit === "year") date.setUTCMonth(12, 0);
  return date.toISOString().slice(0, 10);
}

function plusDays(day, days) {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date.toISOString().slice(0, 10);
}

const daysBetween = (from, to) => Math.round((Date.parse(to) - Date.parse(from)) / 86_400_000) + 1;

/* Whether a day is over for so many hours, so that its share won't change by waiting. */
const isMature = (day, age) => Date.parse(`${endOf(day)}T00:00:00Z`) + (24 + age) * 3_600_000 <= Date.parse(`${D.local_time}Z`);

/* Filters by key: each is a number into a list of the figures, or nothing. */
const FILTERS = ["oa", "template", ...carriedKeys];

function choose(from, to) {
  const days = D.days.map((day) => (!from || endOf(day) >= from) && (!to || day <= to));
  const chosen = FILTERS.map((key) => [key, $(key).value]).filter(([, value]) => value !== "").map(([key, value]) => [key, +value]);
  const isChosen = (cube) => (i) => (!cube.day || days[cube.day[i]]) && chosen.every(([key, value]) => cube[key][i] === value);
  return { days, isChosen };
}

/* The days of the same length just before those that are shown; only where all of them are known. */
function periodBefore() {
  if (D.unit !== "day" || !$("from").value || !D.days.length) return null;
  const from = $("from").value, to = $("to").value || D.days[D.days.length - 1];
  const length = daysBetween(from, to), start = plusDays(from, -length);
  return length > 0 && start >= D.days[0] ? { length, ...choose(start, plusDays(from, -1)) } : null;
}

const MEASURES = [...D.outcomes, "cost", "cost_failed", "unpriced"];
const zeros = () => ({ sent: 0, ...Object.fromEntries(MEASURES.map((name) => [name, 0])) });

function addUp(isChosen) {
  const cube = D.delivery, test = isChosen(cube);
  const sums = { all: zeros(), day: D.days.map(zeros), template: D.templates.map(zeros), telco: D.telcos.map(zeros) };
  carriedKeys.forEach((key, n) => { sums[key] = D.values[n].map(zeros); });
  const keys = Object.keys(sums).filter((key) => key !== "all");
  for (let i = 0; i < cube.day.length; i++) {
    if (!test(i)) continue;
    const targets = [sums.all, ...keys.map((key) => sums[key][cube[key][i]])];
    for (const name of MEASURES) {
      const value = cube[name][i];
      if (!value) continue;
      for (const target of targets) target[name] += value;
    }
  }
  for (const sum of [sums.all, ...keys.flatMap((key) => sums[key])]) {
    sum.sent = D.outcomes.reduce((total, name) => total + sum[name], 0);
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
  carriedKeys.forEach((key, n) => { sums[key] = grid(D.values[n].length, codes); });
  const keys = ["telco", "template", ...carriedKeys];
  for (let i = 0; i < cube.day.length; i++) {
    if (!test(i)) continue;
    const code = cube.code[i], messages = cube.messages[i];
    sums.all += messages;
    sums.code[code] += messages;
    for (const key of keys) sums[key][cube[key][i]][code] += messages;
  }
  sums.withoutZalo = D.codes.reduce((total, code, n) => total + (D.without_zalo.includes(code.code) ? sums.code[n] : 0), 0);
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
  return days.map((ages) => ages.map(([part, whole, mature]) => (mature ? ratio(part, whole) : null)));
}

function addUpHours(isChosen) {
  const cube = D.hours, test = isChosen(cube);
  const hours = Array.from({ length: 24 }, (_, hour) => ({ hour, sent: 0, final: 0, delivered: 0 }));
  for (let i = 0; i < cube.hour.length; i++) {
    if (!test(i)) continue;
    const sum = hours[cube.hour[i]];
    sum.sent += cube.messages[i];
    sum.final += cube.final[i];
    sum.delivered += cube.delivered[i];
  }
  for (const sum of hours) sum.rateFinal = ratio(sum.delivered, sum.final);
  return hours;
}
