// The operator's view: how all cameras do now, asked anew each five seconds while somebody looks.

import { ask, byId, clock, count, faceUrl, make, query, sentence, thumbUrl } from "./common.js";
import { spark } from "./charts.js";
import { follow as followPast } from "./past.js";

const EVERY_MS = 5000;
const PICTURES_EVERY_MS = 30_000;
const WORDS = { critical: "See to it", warning: "To know" };

const number = (n) => n.toLocaleString("en-GB");
const percent = (share) => (share === null ? "–" : share === 1 ? "100 %" : `${Math.min(99.9, share * 100).toFixed(1)} %`);
const kilo = (bytes) => (bytes < 10_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${number(Math.round(bytes / 1000))} kB`);
const span = (seconds) =>
  seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
const millis = (n) => (n === null ? "–" : n < 950 ? `${Math.round(n)} ms` : span(n / 1000).replace(/^(\d) s$/, () => `${(n / 1000).toFixed(1)} s`));

/** Rows of a table that stay where they are while what they say changes. */
class Rows {
  #body; #build; #rows = new Map();

  constructor(body, build) {
    this.#body = body;
    this.#build = build;
  }

  show(items, nameOf) {
    const names = new Set(items.map(nameOf));
    for (const [name, row] of this.#rows) {
      if (!names.has(name)) {
        row.element.remove();
        this.#rows.delete(name);
      }
    }
    items.forEach((item, at) => {
      const name = nameOf(item);
      if (!this.#rows.has(name)) this.#rows.set(name, this.#build(item));
      const row = this.#rows.get(name);
      row.update(item);
      if (this.#body.children[at] !== row.element) this.#body.insertBefore(row.element, this.#body.children[at] ?? null);
    });
  }
}

function cell(name, more = "") {
  return make("td", { className: `n ${more}`, "data-name": name });
}

function set(element, text, title = "") {
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("zero", text === "0" || text === "–");
  element.title = title;
}

const STEPS = { Seen: "frames", Inspected: "inspected", Captured: "captured", Waiting: "waiting", Stored: "stored", Dropped: "dropped", Refused: "refused" };

function cameraRow(camera) {
  const wall = `/${query({ site: camera.site, camera: camera.camera })}`;
  const picture = make("td", { className: "last" });
  const link = make("a", { href: wall, textContent: camera.camera });
  const head = make("th", { scope: "row" }, link, make("br"), make("small", { className: "quiet", textContent: camera.site }));
  const words = make("span");
  const meter = make("meter", { min: 0, max: 1, low: 0.999, optimum: 1, "aria-label": `Received over generated at ${camera.camera}` });
  const share = make("td", { className: "n", "data-name": "Received" }, make("span", { className: "share" }, words, meter));
  const steps = Object.keys(STEPS).map((name) => cell(name));
  const times = cell("p50 / p99");
  const trend = make("td", { className: "trend" });
  const element = make("tr", {}, picture, head, share, ...steps, times, trend);
  let drawn = "";
  const ask_picture = async () => {
    try {
      const { faces } = await ask(`/api/faces${query({ site: camera.site, camera: camera.camera, limit: 1 })}`);
      if (!faces.length || picture.dataset.key === faces[0].key) return;
      picture.dataset.key = faces[0].key;
      const when = new Date(faces[0].time);
      const image = make("img", { src: thumbUrl(faces[0]), width: 48, height: 48, alt: `Last face at ${camera.camera}, ${when.toLocaleString("en-GB")}` });
      picture.replaceChildren(make("a", { className: "face", href: faceUrl(faces[0]) }, image));
    } catch {
      // the page itself says what is wrong with the bucket
    }
  };
  seen.observe(element);
  pictures.set(element, ask_picture);
  return {
    element,
    update(now) {
      element.className = now.level;
      set(words, percent(now.share), now.share === null ? "" : `${number(now.counts.stored + now.counts.erased)} of ${number(now.counts.captured)}`);
      meter.hidden = now.share === null;
      meter.value = now.share ?? 0;
      Object.values(STEPS).forEach((step, at) => {
        const why = now.reasons.filter((reason) => reason.column === step);
        const text = number(now.counts[step]);
        const sent = step === "stored" && now.counts.sent ? `${number(now.counts.sent)} sent, without receipts` : "";
        const small = sent || why.map((reason) => `${number(reason.n)} ${reason.code}`).join(", ");
        if (steps[at].dataset.mark === text + small) return;
        steps[at].dataset.mark = text + small;
        set(steps[at], text, why.map((reason) => `${number(reason.n)} ${reason.words}`).join("; "));
        if (small) steps[at].append(make("small", { textContent: small }));
      });
      set(times, now.latency.p50 === null ? "–" : `${millis(now.latency.p50)} / ${millis(now.latency.p99)}`);
      const mark = JSON.stringify(now.hours);
      if (mark !== drawn) {
        drawn = mark;
        const hours = now.hours.map((hour) => hour && { captured: hour[0], dropped: hour[1], refused: hour[2] });
        const heard = hours.filter(Boolean);
        const sum = (name) => heard.reduce((all, hour) => all + Math.max(0, hour[name]), 0);
        const label = `Last 24 hours at ${now.camera}: ${count(sum("captured"), "face")} captured, ${number(sum("dropped"))} dropped, ${number(sum("refused"))} refused`;
        trend.replaceChildren(spark(hours, label));
      }
    },
  };
}

function edgeRow() {
  const head = make("th", { scope: "row" });
  const names = ["Last heard", "Going up", "Oldest waiting", "A receipt takes", "In flight", "Cuts", "Made anew"];
  const cells = names.map((name, at) => cell(name, at ? "" : "heard"));
  cells[0].className = "";
  const element = make("tr", {}, head, ...cells);
  return {
    element,
    update({ site, outbox, heard, silent, link }) {
      element.className = silent ? "critical" : "";
      head.replaceChildren(site, make("small", { className: "quiet", textContent: ` ${outbox.slice(0, 8)}` }));
      const ago = heard ? (Date.now() - new Date(heard)) / 1000 : null;
      const says = link
        ? [`${kilo(link.up_bytes_s)}/s`, link.oldest_s === null ? "none waits" : span(link.oldest_s),
           link.silent_s !== null ? `none for ${span(link.silent_s)}` : link.round_trip_s === null ? "–" : millis(link.round_trip_s * 1000),
           `${kilo(link.in_flight)} of ${kilo(link.window)}`, number(link.cuts), number(link.resets)]
        : Array(6).fill("–");
      set(cells[0], ago === null ? "–" : ago < 30 ? "just now" : `${span(ago)} ago`);
      says.forEach((text, at) => set(cells[at + 1], text));
    },
  };
}

const pictures = new Map();
const shown = new Set();
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) shown.delete(target);
    else if (!shown.has(target)) {
      shown.add(target);
      pictures.get(target)();
    }
  }
});

const cameras = new Rows(byId("cameras"), cameraRow);
const edges = new Rows(byId("edges"), edgeRow);

function showAlarms(alarms) {
  const list = byId("alarms");
  const mark = JSON.stringify(alarms.map(({ severity, words }) => [severity, words]));
  if (list.dataset.mark === mark) return;
  list.dataset.mark = mark;
  list.hidden = !alarms.length;
  list.replaceChildren(...alarms.slice(0, 50).map(({ severity, kind, words }) =>
    make("li", { className: severity, "data-kind": kind }, make("b", { textContent: WORDS[severity] }), make("span", {}, ...sentence(words)))));
  if (alarms.length > 50) list.append(make("li", {}, `… and ${alarms.length - 50} more`));
}

function show(now) {
  const title = byId("verdict");
  if (title.textContent !== now.verdict.words) title.textContent = now.verdict.words;
  title.dataset.level = now.verdict.level;
  document.title = `${now.verdict.level === "good" ? "" : "! "}Health · facerelay`;
  showAlarms(now.alarms);
  const ill = new Map();
  for (const alarm of [...now.alarms].reverse()) if (alarm.camera) ill.set(`${alarm.site}/${alarm.camera}`, alarm.severity);
  const ranked = now.cameras.map((camera) => ({ ...camera, level: ill.get(camera.name) ?? "" }));
  ranked.sort((one, other) => (other.level !== "") - (one.level !== "") || one.name.localeCompare(other.name));
  cameras.show(ranked, (camera) => camera.name);
  edges.show(now.edges, (edge) => `${edge.site}/${edge.outbox}`);
  byId("cameras-part").hidden = !now.cameras.length;
  byId("edges-part").hidden = !now.edges.length;
  showNone(!now.cameras.length);
}

function showNone(is_empty) {
  const none = byId("none");
  none.hidden = !is_empty;
  if (!is_empty || none.hasChildNodes()) return;
  const step = (what, command) => make("div", {}, make("dt", { textContent: what }), make("dd", {}, make("code", { textContent: command })));
  none.append(
    make("h2", { textContent: "No edge has reported yet" }),
    make("p", { textContent: "An edge tells its books ten seconds after it began, if a store runs here." }),
    make("dl", {}, step("In the cloud", "facerelay store -c cloud.toml"), step("At the edge", "facerelay capture -c edge.toml"), step("What keeps it", "facerelay doctor -c edge.toml")),
  );
}

const state = byId("state");
let timer = 0;

async function look() {
  clearTimeout(timer);
  try {
    const now = await ask("/api/health");
    show(now);
    state.className = "pill live";
    state.textContent = `As of ${clock(new Date(now.time))}`;
  } catch (fault) {
    state.className = "pill fault";
    state.textContent = fault.message;
    const title = byId("verdict");
    if (!title.dataset.level) title.textContent = "Nothing can be said: the books cannot be read.";
    title.dataset.level = "unknown";
  }
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) look();
});
setInterval(() => { if (!document.hidden) for (const row of shown) pictures.get(row)(); }, PICTURES_EVERY_MS);
followPast();
look();
