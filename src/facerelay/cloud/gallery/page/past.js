// "Did we lose a face?": a night, a day or a week of the past, with why.

import { ask, byId, count, make, midnight, query, sentence, shortDate, two } from "./common.js";
import { chart } from "./charts.js";

const HOUR_MS = 3_600_000;
const TROUBLE = {
  store: "No store at work", silent: "Not heard", unanswered: "No receipts", late: "Faces late", dark: "Camera dark",
};
const COLUMNS = {
  Seen: "frames", Inspected: "inspected", Captured: "captured", Stored: "stored", Waiting: "waiting", Dropped: "dropped",
  Refused: "refused", Erased: "erased",
};

const number = (n) => n.toLocaleString("en-GB");
const time = (at) => `${two(at.getHours())}:${two(at.getMinutes())}`;
const when = (at) => `${shortDate(at)} ${time(at)}`;

/** Return the stretch that a word means, in the reader's own days: a night is from six to eight. */
function stretch(word) {
  const now = new Date();
  const at = (days, hour) => new Date(now.getFullYear(), now.getMonth(), now.getDate() + days, hour);
  if (word === "night") return { start: at(-1, 18), end: at(0, 8) };
  if (word === "today") return { start: at(0, 0), end: at(1, 0) };
  if (word === "yesterday") return { start: at(-1, 0), end: at(0, 0) };
  if (word === "week") return { start: at(-6, 0), end: at(1, 0) };
  const day = new Date(`${word}T00:00`);
  return Number.isNaN(day.getTime()) ? null : { start: day, end: midnight(day, 1) };
}

function pressed(word) {
  for (const button of document.querySelectorAll("[data-past]")) button.setAttribute("aria-pressed", String(button.dataset.past === word));
  byId("day").value = /^\d{4}-/.test(word ?? "") ? word : "";
}

/** What else went on in an hour at a place: most often that is the cause. */
function meanwhile(loss, bands) {
  const [site, camera] = loss.camera.split("/");
  const [since, end] = [new Date(loss.since), new Date(loss.end)];
  return bands.filter((band) => new Date(band.start) < end && new Date(band.end) > since
    && (!band.site || band.site === site) && (!band.camera || band.camera === camera));
}

function lossItem(loss, bands) {
  const [since, end] = [new Date(loss.since), new Date(loss.end)];
  const what = loss.column === "dropped" ? "lost" : "refused";
  const head = make("summary", {},
    make("b", { textContent: `${count(loss.n, "face")} ${what}` }), loss.camera,
    make("span", { textContent: `${when(since)} to ${time(end)}` }));
  const facts = make("dl");
  const say = (name, ...said) => facts.append(make("dt", { textContent: name }), make("dd", {}, ...said));
  say("Why", `${number(loss.n)} ${loss.words}${loss.code ? ` (${loss.code})` : ""}`);
  const around = meanwhile(loss, bands);
  if (around.length) {
    say("At that time", make("ul", {}, ...around.slice(0, 5).map((band) =>
      make("li", { textContent: `${when(new Date(band.start))} to ${time(new Date(band.end))}: ${band.words}` }))));
  }
  if (loss.todo) say("What to do", ...sentence(loss.todo));
  if (loss.column === "refused") say("Where they are", "At the edge, with their pictures, for outbox.keep_days.");
  return make("li", { className: loss.column }, make("details", { name: "loss" }, head, make("div", { className: "why" }, facts)));
}

function bandItem(band) {
  const [start, end] = [new Date(band.start), new Date(band.end)];
  const until = band.lasts ? "now" : end - start > 20 * HOUR_MS ? when(end) : time(end);
  return make("li", { "data-kind": band.kind }, make("time", { dateTime: band.start, textContent: `${when(start)} – ${until}` }), make("span", { textContent: band.words }));
}

function rowsOf(bands) {
  const rows = new Map();
  for (const band of bands) {
    const where = band.camera ? `${band.site}/${band.camera}` : band.site;
    const name = `${TROUBLE[band.kind]}${where ? `: ${where}` : ""}`;
    rows.set(name, [...(rows.get(name) ?? []), band]);
  }
  return [...rows].slice(0, 12).map(([name, there]) => ({ name, bands: there }));
}

function drawHours(table, past) {
  const head = make("tr", {}, make("th", { scope: "col", textContent: "Hour" }),
    ...Object.keys(COLUMNS).map((name) => make("th", { scope: "col", className: "n", textContent: name })),
    make("th", { scope: "col", className: "n", textContent: "p99" }));
  const rows = past.hours.filter((hour) => new Date(hour.start) < new Date()).map((hour) => {
    const from = new Date(hour.start);
    const name = make("th", { scope: "row" }, when(from));
    if (hour.captured === undefined) {
      return make("tr", {}, name, make("td", { colSpan: 9, className: "quiet", textContent: "nothing was heard: counted later, if at all" }));
    }
    if (hour.since) name.append(make("small", { textContent: ` and since ${when(new Date(hour.since))}` }));
    return make("tr", {}, name, ...Object.values(COLUMNS).map((step) =>
      make("td", { className: `n ${hour[step] ? "" : "zero"}`, textContent: number(hour[step]) })),
      make("td", { className: "n", textContent: hour.p99 === null ? "–" : `${number(Math.round(hour.p99))} ms` }));
  });
  table.replaceChildren(table.caption, make("thead", {}, head), make("tbody", {}, ...rows));
}

function drawChart(past) {
  const [start, end] = [new Date(past.start), new Date(past.end)];
  const now = Date.now();
  const hours = past.hours.map((hour) => (hour.captured !== undefined ? hour : new Date(hour.start) > now - HOUR_MS ? "to come" : null));
  const box = byId("chart");
  const room = Math.max(280, box.clientWidth);
  const each = Math.ceil((hours.length * 52) / room);
  const tick = (n) => {
    const at = new Date(start.getTime() + n * HOUR_MS);
    if (hours.length > 48) return at.getHours() === 0 ? shortDate(at) : "";
    return n % each ? "" : time(at);
  };
  const sum = (name) => past.hours.reduce((all, hour) => all + Math.max(0, hour[name] ?? 0), 0);
  const label = `${count(sum("captured"), "face")} captured from ${when(start)} to ${when(end)}, ${number(sum("dropped"))} dropped, ${number(sum("refused"))} refused`;
  box.replaceChildren(chart({ hours, start, end, rows: rowsOf(past.bands), tick, label, width: room }));
  const key = (name, words) => make("span", {}, make("i", { className: name }), words);
  byId("legend").replaceChildren(key("came", "captured"), key("lost", "dropped or refused"), key("unheard", "nothing heard"));
}

function show(past) {
  const [start, end] = [new Date(past.start), new Date(past.end)];
  byId("span").textContent = `${when(start)} to ${when(end)}, by your clock. Counts go by the hour in which they were told.`;
  const verdict = byId("past-verdict");
  verdict.textContent = past.verdict.words;
  verdict.dataset.level = past.verdict.level;
  const losses = byId("losses");
  losses.hidden = !past.losses.length;
  losses.replaceChildren(...past.losses.slice(0, 100).map((loss) => lossItem(loss, past.bands)));
  if (past.losses.length > 100) losses.append(make("li", { className: "quiet", textContent: `… and ${past.losses.length - 100} more: choose a shorter time` }));
  const bands = byId("bands");
  bands.hidden = !past.bands.length;
  bands.replaceChildren(...past.bands.slice(0, 60).map(bandItem));
  if (past.bands.length > 60) bands.append(make("li", { className: "quiet", textContent: `… and ${past.bands.length - 60} more` }));
  drawChart(past);
  drawHours(byId("hours"), past);
}

let asked = null;
let last = null;

async function look(word) {
  const { start, end } = stretch(word) ?? {};
  pressed(start ? word : null);
  const answer = byId("answer");
  answer.hidden = !start;
  asked?.abort();
  if (!start) return;
  asked = new AbortController();
  answer.setAttribute("aria-busy", "true");
  const hours = Math.ceil((end - start) / HOUR_MS + (start % HOUR_MS) / HOUR_MS);  // counts are by the full hour of UTC
  try {
    last = await ask(`/api/health/period${query({ start: start.toISOString(), hours })}`, { signal: asked.signal });
    show(last);
  } catch (fault) {
    if (fault.name === "AbortError") return;
    byId("past-verdict").textContent = fault.message;
    byId("past-verdict").dataset.level = "unknown";
  }
  answer.removeAttribute("aria-busy");
}

const word = () => new URLSearchParams(location.search).get("past");

function choose(chosen) {
  history.pushState(null, "", `/health${query({ past: chosen })}`);
  look(chosen);
}

/** Follow what is asked for: by the buttons, and by the address. */
export function follow() {
  for (const button of document.querySelectorAll("[data-past]")) button.onclick = () => choose(button.dataset.past);
  byId("day").onchange = (event) => { if (event.target.value) choose(event.target.value); };
  addEventListener("popstate", () => look(word()));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (last && innerWidth !== width) drawChart(last);
    width = innerWidth;
  });
  if (word()) look(word());
}
