// What the gallery's pages share: elements, words for times, the server's answers, and its events.

export const byId = (id) => document.getElementById(id);
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Make an element with properties (`aria-…` and `data-…` as attributes) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Return a sentence as nodes, with what stands between back-ticks as code. */
export const sentence = (words) => words.split("`").map((part, at) => (at % 2 ? make("code", { textContent: part }) : part));

// Times are shown where the reader is, on a clock of 24 hours.
const form = (options) => new Intl.DateTimeFormat("en-GB", options);
const CLOCK = form({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DATE = form({ weekday: "long", day: "numeric", month: "long" });
const SHORT = form({ weekday: "short", day: "numeric", month: "short" });
const TICK = form({ day: "numeric", month: "short" });
const FULL = form({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const plain = (format, time) => format.format(time).replace(",", "");

export const clock = (time) => CLOCK.format(time);
export const date = (time) => plain(time.getFullYear() === new Date().getFullYear() ? DATE : FULL, time);
export const shortDate = (time) => plain(SHORT, time);
export const tickDate = (time) => TICK.format(time);
export const fullDate = (time) => plain(FULL, time);
export const two = (number) => String(number).padStart(2, "0");
export const moment = (iso) => `${shortDate(new Date(iso))}, ${new Date(iso).toTimeString().slice(0, 5)}`;
export const midnight = (time, days = 0) => new Date(time.getFullYear(), time.getMonth(), time.getDate() + days);
export const dayKey = (time) => `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en-GB")} ${number === 1 ? one : many}`;

/** What a face is called: read out in place of its picture. */
export const nameOf = (face) => `Face at ${face.camera}, ${clock(new Date(face.time))}`;

export const faceUrl = (face) => `/face?key=${encodeURIComponent(face.key)}`;
export const thumbUrl = (face) => `/thumb?key=${encodeURIComponent(face.key)}`;
export const pictureUrl = (face) => `/picture?key=${encodeURIComponent(face.key)}`;

/** Return a query string of what is set. */
export function query(values) {
  const set = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(set).toString();
  return text && `?${text.replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%3D", "=")}`;
}

/** What the server could not do, in words; `status` is 0 where it does not answer at all. */
export class Fault extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask the server; throws a Fault, or AbortError where `signal` ended it. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault(0, "The gallery does not answer.");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) location.assign(`/login${query({ next: location.pathname + location.search })}`);
  if (!answer.ok) throw new Fault(answer.status, body.error || `The gallery answers ${answer.status}.`);
  return body;
}

/** What may be done here. Who has logged in can log out: by a button in the bar. */
export const settings = ask("/api/settings").catch(() => ({}));
settings.then(({ login }) => {
  if (!login) return;
  const out = make("button", { type: "button", id: "logout", textContent: "Log out" });
  out.addEventListener("click", async () => {
    addEventListener("pagehide", () => sessionStorage.clear()); // after what the page itself keeps
    await ask("/logout", { method: "POST", headers: { "X-Facerelay": "1" } }).catch(() => {});
    location.assign("/login");
  });
  document.querySelector(".bar").append(out);
});

/** Erase faces for good; tells this browser's other pages. */
export async function erase(keys) {
  const done = await ask("/api/erase", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Facerelay": "1" },
    body: JSON.stringify({ keys }),
  });
  new BroadcastChannel("facerelay").postMessage({ erased: keys });
  const kept = JSON.parse(sessionStorage.getItem("erased") || "[]");
  sessionStorage.setItem("erased", JSON.stringify([...kept, ...keys].slice(-5000)));
  return done;
}

const HIDDEN_MS = 30_000;
const OPEN_MS = 500;
const AGAIN_MS = [1000, 2000, 5000, 15_000];

/**
 * The server's events, for as long as the page is looked at: a browser has six connections to a host,
 * which pages in the background would use up. `on.open` is called with true after a gap, to catch up,
 * `on.without` now and then while there are none.
 */
export class Live {
  #path; #on; #source = null; #timer = 0; #tries = 0; #again = false; #opened = () => {};

  constructor(on) {
    this.#on = on;
    document.addEventListener("visibilitychange", () => this.#looked());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => { if (event.persisted) this.#connect(); });
    new BroadcastChannel("facerelay").onmessage = ({ data }) => on.erased?.(data.erased);
  }

  /** Listen at a path from now on; resolves when what is read from here on leaves no gap. */
  follow(path) {
    if (this.#path === path && this.#source?.readyState === EventSource.OPEN) return Promise.resolve();
    this.#path = path;
    this.#again = false;
    return new Promise((resolve) => {
      this.#opened = resolve;
      setTimeout(resolve, OPEN_MS);
      this.#connect();
    });
  }

  #looked() {
    clearTimeout(this.#timer);
    if (document.hidden) this.#timer = setTimeout(() => this.#close(), HIDDEN_MS);
    else if (!this.#source) this.#connect();
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #connect() {
    this.#close();
    if (!this.#path) return;
    const source = new EventSource(this.#path);
    this.#source = source;
    source.onopen = () => {
      this.#tries = 0;
      this.#on.open?.(this.#again);
      this.#again = true;
      this.#opened();
    };
    source.addEventListener("face", (event) => this.#on.face?.(JSON.parse(event.data)));
    source.addEventListener("erased", (event) => this.#on.erased?.([JSON.parse(event.data).key]));
    source.onerror = () => {
      this.#on.lost?.();
      if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      this.#close();
      const wait = AGAIN_MS[Math.min(this.#tries++, AGAIN_MS.length - 1)];
      this.#timer = setTimeout(() => { this.#connect(); this.#on.without?.(); }, wait);
    };
  }
}
