// The wall: what is asked for stands in the URL, and what comes goes to the grid and the timeline.

import { announce } from "./announce.js";
import { Live, ask, byId, count, moment, query } from "./common.js";
import { Faces } from "./faces.js";
import { onChange, places, read, show } from "./filters.js";
import { Grid } from "./grid.js";
import { keep, recall } from "./memory.js";
import { ending, text } from "./notices.js";
import { Timeline } from "./timeline.js";

const PAGE = 60;
const LOOKS = 6; // pages without a face that are asked for before the reader is
const AT_TOP = 90;
const SLOW_MS = 800;
const RECOUNT_MS = 20_000;
const COUNT_AGAIN_MS = [1000, 4000];

const wall = byId("wall"), end = byId("end"), state = byId("state"), fresh = byId("fresh");
const faces = new Faces();
const waiting = new Map(); // landed while the reader looks further down
let early = []; // landed while the first page was read
let asked = read();
let next = null, searched = null, loading = null, failed = null, linked = true, empty = 0, version = 0;
let opened = null, recounting = 0, beside = new AbortController();
let torn = false; // so many landed in a gap of the events that some are not even waiting

const timeline = new Timeline((at) => go({ at: at ? at.toISOString().replace(":00.000Z", "Z") : "" }), () => grid.label());
const grid = new Grid(byId("groups"), faces, {
  seen: (group) => { if (faces.size) timeline.view(group.time); },
  near: () => more(),
  open: () => next && !failed && empty < LOOKS,
  count: (day) => (asked.quality ? null : timeline.count(day)),
});
const live = new Live({
  open: (again) => { linked = true; say(); if (again) catchUp(); },
  lost: () => { linked = false; say(); },
  without: () => catchUp(),
  face: land,
  erased: gone,
});

// What is asked for.

function go(change) {
  const before = query(asked);
  asked = { ...asked, ...change };
  if (query(asked) === before && !failed) { scrollTo(0, 0); return; }
  keepPlace();
  history.pushState(null, "", `/${query(asked)}`);
  load();
}

onChange(go);
byId("tolive").addEventListener("click", () => go({ at: "" }));
addEventListener("popstate", () => { asked = read(); load({ restore: true }); });

// Pages of faces.

const filter = () => ({ site: asked.site, camera: asked.camera });
const page = (cursor, signal) => ask(`/api/faces${query({ ...asked, cursor, limit: PAGE })}`, { signal });

async function load({ restore = false } = {}) {
  const mine = ++version;
  loading?.abort();
  loading = new AbortController();
  const { signal } = loading;
  waiting.clear();
  torn = false;
  offer();
  show(asked);
  early = [];
  side();
  const following = live.follow(`/api/live${query(filter())}`);
  if (restore && putBack()) {
    loading = null;
    wall.removeAttribute("aria-busy");
    following.then(catchUp);
    return;
  }
  wall.setAttribute("aria-busy", "true");
  try {
    await following;
    const answer = await page("", signal);
    if (mine !== version) return;
    faces.clear();
    next = null;
    empty = 0;
    failed = null;
    scrollTo(0, 0);
    take(answer);
  } catch (error) {
    if (error.name === "AbortError" || mine !== version) return;
    fail(error);
  }
  loading = null;
  wall.removeAttribute("aria-busy");
  draw();
  if (!faces.size && asked.at) timeline.view(new Date(Date.parse(asked.at) - 1));
  for (const face of early.splice(0)) land(face);
}

/** What goes beside the faces: the places and the timeline. */
function side() {
  beside.abort();
  beside = new AbortController();
  places().then(() => show(asked)).catch(() => {});
  days().catch(() => {});
}

/** Read the timeline; the server counts days behind our back, and knows more when it is asked again. */
async function days(again = COUNT_AGAIN_MS) {
  const { signal } = beside;
  const all = await timeline.load(filter(), signal);
  grid.label();
  if (all || !again.length) return;
  await new Promise((resolve) => setTimeout(resolve, again[0]));
  if (!signal.aborted) await days(again.slice(1));
}

async function more() {
  if (!next || loading || failed || empty >= LOOKS) return;
  const mine = version;
  loading = new AbortController();
  const slow = setTimeout(() => { if (faces.size) end.replaceChildren(text("Earlier faces…")); }, SLOW_MS);
  try {
    const answer = await page(next, loading.signal).finally(() => clearTimeout(slow));
    if (mine !== version) return;
    loading = null;
    take(answer);
  } catch (error) {
    if (error.name === "AbortError" || mine !== version) return;
    loading = null;
    fail(error);
  }
  draw();
}

function take(answer) {
  for (const face of answer.faces) faces.add(face);
  next = answer.next;
  searched = answer.searched_to ?? null;
  empty = answer.faces.length ? 0 : empty + 1;
}

function fail(error) {
  const tries = (failed?.tries ?? 0) + 1;
  clearTimeout(failed?.timer);
  const again = () => { if (failed) retry(); };
  failed = { error, tries, timer: setTimeout(again, Math.min(30_000, 1000 * 2 ** tries)) };
}

function retry() {
  const { tries } = failed;
  clearTimeout(failed.timer);
  if (!faces.size) { load(); return; }
  failed = null;
  empty = 0;
  more().then(() => { if (failed) failed.tries = tries + 1; });
}

function draw(landed = []) {
  grid.update(landed);
  const weary = empty >= LOOKS;
  end.replaceChildren(...ending({ failed, size: faces.size, next, weary, searched, asked }, {
    retry,
    further: () => { empty = 0; more(); draw(); },
    all: () => go({ site: "", camera: "", at: "", quality: "" }),
  }));
  say();
  if (next && !loading && !failed && !faces.size) more();
}

function say() {
  const words = failed ? (failed.error.status === 0 ? "No answer" : "Bucket cannot be read")
    : !linked ? "Connecting…" : asked.at ? `Up to ${moment(asked.at)}` : "Live";
  if (state.textContent !== words) state.textContent = words;
  state.className = `pill ${failed || !linked ? "fault" : asked.at ? "" : "live"}`;
  byId("tolive").hidden = !asked.at;
}

// What happens in the meantime.

async function land(face) {
  if (wall.hasAttribute("aria-busy")) { early.push(face); return; }
  if (faces.has(face.key) || waiting.has(face.key)) return;
  const time = new Date(face.time), mine = version;
  timeline.add(time);
  recount();
  if (asked.at && time >= new Date(asked.at)) return;
  if (asked.quality && (face.quality ?? (await quality(face.key))) < asked.quality) return;
  if (mine !== version || (next && faces.oldest && time.getTime() < faces.oldest.at)) return; // it comes with its page
  if (scrollY > AT_TOP && (!faces.newest || time.getTime() > faces.newest.at)) {
    waiting.set(face.key, face);
    offer();
  } else if (faces.add(face)) draw([face.key]);
  announce(face);
}

/** The timeline counts along; now and then it is read anew, for faces that came twice or were missed. */
function recount() {
  recounting ||= setTimeout(() => {
    recounting = 0;
    days([]).catch(() => {});
  }, RECOUNT_MS);
}

const quality = (key) => ask(`/api/face${query({ key })}`).then(({ face }) => face.quality ?? 0).catch(() => 0);

function offer() {
  fresh.hidden = !waiting.size;
  fresh.textContent = `${count(waiting.size, "new face")} ↑`;
}

fresh.addEventListener("click", () => {
  if (torn) { load(); return; }
  const landed = [...waiting.keys()];
  for (const face of waiting.values()) faces.add(face);
  waiting.clear();
  offer();
  scrollTo(0, 0);
  draw(landed);
  grid.show(faces.newest.key);
});

function gone(keys) {
  let any = false;
  for (const key of keys) {
    const face = faces.get(key) ?? waiting.get(key);
    if (!face) continue;
    any = true;
    timeline.add(new Date(face.time), -1);
    faces.remove(key);
    waiting.delete(key);
  }
  if (!any) return;
  offer();
  draw();
}

/** After a gap in the events: what has landed since, and what is not there any more. */
async function catchUp() {
  if (asked.at || wall.hasAttribute("aria-busy")) return;
  const mine = version;
  const answer = await page("").catch(() => null);
  if (!answer || mine !== version) return;
  const now = new Set(answer.faces.map(({ key }) => key));
  const hole = answer.next && faces.size && !answer.faces.some(({ key }) => faces.has(key));
  if (hole && scrollY <= AT_TOP) { load(); return; }
  torn ||= hole;
  const since = answer.next ? Date.parse(answer.searched_to ?? answer.faces.at(-1)?.time ?? Date.now()) : -Infinity;
  gone(faces.keys().filter((key) => faces.get(key).at > since && !now.has(key)));
  for (const face of [...answer.faces].reverse()) land(face);
}

// The way to a face's page, and back.

function keepPlace() {
  keep(query(asked), { keys: faces.keys(), next, searched, scroll: scrollY, opened: opened ?? grid.current });
}

function putBack() {
  const kept = recall(query(asked));
  if (!kept) return false;
  faces.clear();
  for (const face of kept.faces) faces.add(face);
  ({ next, searched } = kept);
  failed = null;
  empty = 0;
  draw();
  scrollTo(0, kept.scroll);
  draw();
  if (faces.has(kept.opened)) grid.show(kept.opened);
  return true;
}

wall.addEventListener("click", ({ target }) => {
  opened = target.closest("a[data-key]")?.dataset.key ?? opened;
});
addEventListener("pagehide", () => {
  keepPlace();
  sessionStorage.setItem("last", query(asked));
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (!fresh.hidden) fresh.click();
  else if (asked.at) go({ at: "" });
  else scrollTo({ top: 0 });
});

history.scrollRestoration = "manual";
const back = performance.getEntriesByType("navigation")[0]?.type === "back_forward" || sessionStorage.getItem("return") === "1";
sessionStorage.removeItem("return");
load({ restore: back });
