// The timeline: a month of days as bars, and the hours of one of them; both are sliders.

import { ask, byId, count, date, dayKey, make, midnight, query, shortDate, tickDate, two } from "./common.js";

const DAYS = 31;
const LEAST = 0.07;
const UNKNOWN = 0.4;
const HOUR_MS = 3_600_000;

/** A row of bars that is one slider. Items are `{n, text}`: n faces, 0 none, null some. */
class Strip {
  #element; #items = []; #here = -1; #on; #page;

  constructor(element, on, page) {
    this.#element = element;
    this.#on = on;
    this.#page = page;
    element.setAttribute("aria-valuemin", 0);
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("pointerdown", (event) => this.#drag(event));
  }

  set(items) {
    const { children } = this.#element;
    while (children.length > items.length) this.#element.lastChild.remove();
    while (children.length < items.length) this.#element.append(make("i"));
    const most = items.some(({ n }) => n === null) ? 0 : Math.max(1, ...items.map(({ n }) => n));
    items.forEach(({ n, text }, index) => {
      const height = n === 0 ? 0 : most ? Math.max(LEAST, n / most) : UNKNOWN; // all alike unless all are known
      children[index].style.setProperty("--h", height);
      children[index].classList.toggle("none", n === 0);
      children[index].title = text;
    });
    this.#items = items;
    this.#element.setAttribute("aria-valuemax", items.length - 1);
    this.mark(this.#here);
  }

  mark(index) {
    this.#here = index;
    [...this.#element.children].forEach((bar, at) => bar.classList.toggle("here", at === index));
    const item = this.#items[index];
    this.#element.setAttribute("aria-valuenow", Math.max(0, index));
    this.#element.setAttribute("aria-valuetext", item?.text ?? "none chosen");
  }

  /** The nearest item that has faces, from one on in a direction; or on both sides. */
  #some(from, way) {
    for (let at = from; at >= 0 && at < this.#items.length; at += way) if (this.#items[at].n !== 0) return at;
    return -1;
  }

  #near(index) {
    const older = this.#some(index, -1), newer = this.#some(index, 1);
    if (older < 0 || newer < 0) return Math.max(older, newer);
    return index - older <= newer - index ? older : newer;
  }

  #key(event) {
    const { length } = this.#items;
    const from = this.#here < 0 ? length : this.#here;
    const page = this.#page;
    const moves = {
      ArrowLeft: () => this.#some(from - 1, -1), ArrowDown: () => this.#some(from - 1, -1),
      ArrowRight: () => this.#some(from + 1, 1), ArrowUp: () => this.#some(from + 1, 1),
      PageUp: () => this.#near(Math.max(0, from - page)), PageDown: () => this.#near(Math.min(length - 1, from + page)),
      Home: () => this.#some(0, 1), End: () => this.#some(length - 1, -1),
    };
    if (!moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const to = moves[event.key]();
    if (to >= 0) this.#on.pick(to);
    else if (event.key.startsWith("Arrow")) this.#on.leave(event.key === "ArrowLeft" || event.key === "ArrowDown" ? -1 : 1);
  }

  #drag(event) {
    if (event.button !== 0) return;
    const strip = this.#element, was = this.#here;
    const at = ({ clientX }) => {
      const { left, width } = strip.getBoundingClientRect();
      return this.#near(Math.min(this.#items.length - 1, Math.max(0, Math.floor(((clientX - left) / width) * this.#items.length))));
    };
    const move = (moved) => { const to = at(moved); if (to >= 0) { this.mark(to); this.#on.preview(to); } };
    const end = (ended) => {
      strip.removeEventListener("pointermove", move);
      strip.removeEventListener("pointerup", end);
      strip.removeEventListener("pointercancel", end);
      const to = ended.type === "pointerup" ? at(ended) : -1;
      if (to >= 0) this.#on.pick(to);
      else { this.mark(was); this.#on.preview(was); }
    };
    strip.setPointerCapture(event.pointerId);
    strip.addEventListener("pointermove", move);
    strip.addEventListener("pointerup", end);
    strip.addEventListener("pointercancel", end);
    move(event);
  }
}

export class Timeline {
  #jump; #told; #days = new Map(); #hours = new Map(); #before = new Map(); #reading = new Set(); #filter = ""; #first = null; #last = midnight(new Date());
  #day = midnight(new Date()); #hour = -1; #dayStrip; #hourStrip;

  /** @param jump called with the end of the day or hour that was chosen, or null for now. @param told called when more is known. */
  constructor(jump, told) {
    this.#jump = jump;
    this.#told = told;
    this.#dayStrip = new Strip(byId("days"), {
      pick: (index) => this.#pick(midnight(this.#dayAt(index), 1)),
      preview: (index) => this.#sayDay(this.#dayAt(index)),
      leave: (way) => this.#turn(way, true),
    }, 7);
    this.#hourStrip = new Strip(byId("hours"), {
      pick: (index) => this.#pick(this.#hourEnd(index)),
      preview: (index) => this.#sayHour(index),
      leave: (way) => this.#nextDay(way),
    }, 6);
    byId("before").addEventListener("click", () => this.#turn(-1));
    byId("after").addEventListener("click", () => this.#turn(1));
    ticks(byId("hours"), [0, 6, 12, 18].map((hour) => [hour / 24, two(hour)]));
  }

  /** A day's number of faces; null where it is not known. */
  count(key) { return this.#days.get(key) ?? null; }

  /** Read the days anew, by a filter of site and camera; false where more would be known a moment later. */
  async load(filter, signal) {
    const path = query(filter);
    const { days } = await ask(`/api/timeline${path}`, { signal });
    this.#before = path === this.#filter ? this.#hours : new Map();
    this.#filter = path;
    this.#days.clear();
    this.#hours = new Map();
    for (const day of days) this.#take(day);
    const keys = [...this.#days.keys()].sort();
    this.#first = keys.length ? fromKey(keys[0]) : null;
    byId("time").hidden = !keys.length;
    byId("time").classList.remove("pending");
    this.#draw();
    return ![...this.#days.values()].includes(null);
  }

  /** Show which hour is in sight. */
  view(time) {
    const day = midnight(time);
    const same = day.getTime() === this.#day.getTime();
    if (same && this.#hour === time.getHours()) return;
    this.#day = day;
    this.#hour = time.getHours();
    const shown = this.#index(day);
    if (shown < 0 || shown >= DAYS) this.#last = this.#window(day);
    if (!same) this.#draw();
    else {
      this.#hourStrip.mark(this.#hour);
      this.#sayHour(this.#hour);
    }
  }

  /** Count a face that has landed, or gone. */
  add(time, number = 1) {
    const day = dayKey(time), hours = this.#hours.get(day);
    const known = this.#days.get(day);
    if (known !== null) this.#days.set(day, Math.max(0, (known ?? 0) + number));
    if (hours && hours[time.getHours()] !== null) hours[time.getHours()] = Math.max(0, hours[time.getHours()] + number);
    this.#first ??= midnight(time);
    byId("time").hidden = false;
    this.#draw();
  }

  /** Days and hours come in UTC. Where the hours are known they become days of the reader's own clock. */
  #take({ date: key, faces, hours }) {
    if (!hours) {
      this.#days.set(key, faces);
      return;
    }
    hours.forEach((n, hour) => {
      if (n === 0) return;
      const time = new Date(Date.parse(`${key}T${two(hour)}:00:00Z`)), day = dayKey(time);
      if (!this.#hours.has(day)) this.#hours.set(day, new Array(24).fill(0));
      const local = this.#hours.get(day);
      local[time.getHours()] = sum(local[time.getHours()], n);
      this.#days.set(day, sum(this.#days.has(day) ? this.#days.get(day) : 0, n));
    });
  }

  async #readHours(day) {
    const key = dayKey(day);
    const filter = this.#filter, local = new Array(24).fill(0), mine = `${filter} ${key}`;
    if (this.#hours.has(key) || this.#reading.has(mine)) return;
    this.#reading.add(mine);
    const from = day.getTime(), to = midnight(day, 1).getTime();
    const dates = new Set([from, to - 1].map((at) => new Date(at).toISOString().slice(0, 10)));
    try {
      for (const one of dates) {
        const { hours } = await ask(`/api/timeline/day${query({ ...Object.fromEntries(new URLSearchParams(filter)), date: one })}`);
        hours.forEach((n, hour) => {
          const at = Date.parse(`${one}T00:00:00Z`) + hour * HOUR_MS;
          if (n !== 0 && at > from - HOUR_MS && at < to) local[new Date(Math.max(at, from)).getHours()] = sum(local[new Date(Math.max(at, from)).getHours()], n);
        });
      }
    } catch { // it stays without hours until it is looked at again
      return;
    } finally {
      this.#reading.delete(mine);
    }
    if (filter !== this.#filter) return;
    this.#hours.set(key, local);
    if (!local.includes(null)) this.#days.set(key, local.reduce(sum));
    if (dayKey(this.#day) === key) this.#draw();
    this.#told(key);
  }

  #window(day) {
    const today = midnight(new Date());
    const end = midnight(day, Math.floor(DAYS / 2));
    return end > today ? today : end;
  }

  #dayAt(index) { return midnight(this.#last, index - DAYS + 1); }
  #index(day) { return DAYS - 1 - Math.round((this.#last - day) / (24 * HOUR_MS)); }
  #hourEnd(hour) { return new Date(this.#day.getFullYear(), this.#day.getMonth(), this.#day.getDate(), hour + 1); }
  #pick(end) { this.#jump(end > new Date() ? null : end); }

  /** Show the days before or after; by keyboard the nearest of them with faces is chosen as well. */
  #turn(way, pick = false) {
    const today = midnight(new Date());
    if (pick) {
      const keys = [...this.#days].filter(([, n]) => n !== 0).map(([key]) => key).sort();
      const here = dayKey(this.#day);
      const next = way < 0 ? keys.filter((key) => key < here).at(-1) : keys.find((key) => key > here);
      if (next) this.#pick(midnight(fromKey(next), 1));
      return;
    }
    const last = midnight(this.#last, way * DAYS);
    this.#last = last > today ? today : last;
    this.#draw();
  }

  #nextDay(way) {
    if (way < 0) this.#pick(this.#day);
    else if (midnight(this.#day, 1) <= new Date()) this.#pick(midnight(this.#day, 2));
  }

  #draw() {
    const days = Array.from({ length: DAYS }, (_, index) => this.#dayAt(index));
    this.#dayStrip.set(days.map((day) => ({ n: this.#number(day), text: `${shortDate(day)}, ${words(this.#number(day))}` })));
    this.#dayStrip.mark(this.#index(this.#day));
    const mondays = days.map((day, index) => [index / DAYS, tickDate(day), day.getDay()]).filter(([, , weekday]) => weekday === 1);
    ticks(byId("days"), mondays);
    byId("before").hidden = !this.#first || this.#first >= days[0];
    byId("after").hidden = this.#last >= midnight(new Date());
    this.#sayDay(this.#day);
    this.#drawHours();
  }

  #drawHours() {
    this.#readHours(this.#day);
    const hours = this.#hoursOf(this.#day) ?? new Array(24).fill(0);
    this.#hourStrip.set(hours.map((n, hour) => ({ n, text: `${two(hour)}:00, ${words(n)}` })));
    this.#hourStrip.mark(this.#hour);
    this.#sayHour(this.#hour);
  }

  #hoursOf(day) { return this.#hours.get(dayKey(day)) ?? this.#before.get(dayKey(day)); }

  #number(day) {
    const key = dayKey(day);
    return this.#days.has(key) ? this.#days.get(key) : 0;
  }

  #sayDay(day) {
    byId("day").textContent = date(day);
    byId("day-count").textContent = words(this.#number(day));
  }

  #sayHour(hour) {
    const n = this.#hoursOf(this.#day)?.[hour];
    byId("hour").textContent = hour < 0 ? "Hours" : `${two(hour)}:00 to ${two(hour + 1)}:00`;
    byId("hour-count").textContent = n === undefined ? "" : words(n);
  }
}

const words = (n) => (n === null ? "some faces" : n ? count(n, "face") : "no faces");
const sum = (a, b) => (a === null || b === null ? null : a + b);
const fromKey = (key) => { const [year, month, day] = key.split("-").map(Number); return new Date(year, month - 1, day); };

function ticks(strip, marks) {
  const row = strip.parentElement.querySelector(".ticks");
  row.replaceChildren(...marks.filter(([at]) => at < 0.93).map(([at, text]) => {
    const tick = make("span", { textContent: text });
    tick.style.left = `${at * 100}%`;
    return tick;
  }));
}
