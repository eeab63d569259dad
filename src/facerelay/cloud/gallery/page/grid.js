// The tiles: days and hours stand in the page with their heights, tiles only near what is to be seen.

import { clock, count, date, dayKey, faceUrl, make, midnight, nameOf, still, thumbUrl, two } from "./common.js";
import { moved } from "./moves.js";

const MIN_TILE = { wide: 128, narrow: 96 };
const MARGIN = 1.0;
const NEW_MS = 4000;
const AGAIN_MS = 1500;
const HEADINGS = 76; // of the day and the hour, in pixels

export class Grid {
  #root; #faces; #days = new Map(); #hours = new Map(); #size = {}; #asked = 0; #dirty = true; #laid = [];
  #current = null; #header = 0; #fresh = new Map();

  /**
   * @param on what to call: `seen(group)`, `near()` the end, `count(day)` a day's number of faces or null,
   *   `open()` whether more faces come at the end.
   */
  constructor(root, faces, on) {
    this.#root = root;
    this.#faces = faces;
    this.on = on;
    addEventListener("scroll", () => this.draw(), { passive: true });
    const sizes = new ResizeObserver(() => this.#measure());
    sizes.observe(root);
    sizes.observe(document.querySelector(".deck"));
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focusin", ({ target }) => { if (target.dataset.key) this.#choose(target.dataset.key); });
    root.addEventListener("error", ({ target }) => again(target), true);
    this.#measure();
  }

  get current() { return this.#current; }

  /** The groups to show: a last hour that may still grow would have to move when it does. */
  get #groups() {
    const { groups } = this.#faces;
    const growing = groups.length > 1 && groups.at(-1).faces.length < this.#size.columns && this.on.open();
    return growing ? groups.slice(0, -1) : groups;
  }

  /** Bring the page in line with the faces; those in `fresh` slide in. */
  update(fresh = []) {
    for (const key of fresh) this.#fresh.set(key, performance.now() + NEW_MS);
    const was = fresh.length && !still() ? this.#places() : null;
    this.#sections();
    this.#dirty = true;
    this.#draw();
    if (was) this.#slide(was);
  }

  /** Draw at the next frame. */
  draw() {
    this.#asked ||= requestAnimationFrame(() => this.#draw());
  }

  /** Name the days' and the hours' numbers anew. */
  label() {
    for (const [key, day] of this.#days) this.#nameDay(key, day);
  }

  /** Scroll to a face, and have it hold the keyboard's place. */
  show(key, { focus = true, align = "near" } = {}) {
    const found = this.#faces.find(key);
    if (!found) return false;
    this.#lay();
    const at = this.#laid.find((each) => each.group === found.group);
    if (!at) return false;
    const top = at.top + Math.floor(found.index / this.#size.columns) * this.#size.row;
    const head = this.#header + HEADINGS;
    const view = { from: scrollY + head, to: scrollY + innerHeight - this.#size.row - 8 };
    if (align === "middle") scrollTo(0, top - (innerHeight - this.#size.row) / 2);
    else if (top < view.from) scrollTo(0, top - head);
    else if (top > view.to) scrollTo(0, top - innerHeight + this.#size.row + 16);
    this.#choose(key);
    this.#draw();
    if (focus) this.#tile(key)?.focus({ preventScroll: true });
    return true;
  }

  #tile(key) { return this.#root.querySelector(`a[data-key="${CSS.escape(key)}"]`); }

  /** How much of the top of the window the deck covers. */
  #covered() {
    const deck = document.querySelector(".deck");
    return getComputedStyle(deck).position === "sticky" ? deck.offsetHeight : 0;
  }

  #measure() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const css = getComputedStyle(this.#root);
    const narrow = innerWidth <= 44 * rem;
    const gap = parseFloat(css.getPropertyValue("--gap")) * rem;
    const width = this.#root.clientWidth;
    const columns = Math.max(2, Math.floor((width + gap) / (MIN_TILE[narrow ? "narrow" : "wide"] * (rem / 16) + gap)));
    const tile = Math.floor((width - gap * (columns - 1)) / columns);
    const row = tile + (parseFloat(css.getPropertyValue("--caption")) + 0.375) * rem;
    const root = document.documentElement.style;
    this.#header = this.#covered();
    root.setProperty("--deck", `${this.#header}px`);
    this.#dirty = true;
    if (this.#size.columns === columns && this.#size.tile === tile && this.#size.row === row) return;
    const at = this.#size.tile && scrollY > 0 ? this.#anchor() : null;
    this.#size = { columns, tile, row, step: tile + gap };
    root.setProperty("--tile", `${tile}px`);
    this.#sections();
    for (const { list } of this.#hours.values()) for (const item of list.children) item.placed = null;
    this.#dirty = true;
    this.#draw();
    if (at) this.show(at, { focus: false });
  }

  /** The face at the top, to be found there again when all sizes have changed. */
  #anchor() {
    const head = scrollY + this.#header;
    const at = this.#laid.find((each) => each.bottom > head);
    const index = at ? Math.max(0, Math.floor((head - at.top) / this.#size.row)) * this.#size.columns : 0;
    return at?.group.faces[Math.min(index, at.group.faces.length - 1)]?.key;
  }

  /** Make, order and size the sections of days and hours. */
  #sections() {
    const days = new Set(), hours = new Set();
    let previous = null, last = null, inDay = null;
    for (const group of this.#groups) {
      days.add(group.day);
      hours.add(group.key);
      const day = this.#days.get(group.day) ?? this.#makeDay(group);
      if (group.day !== inDay) {
        keep(this.#root, day.section, previous);
        previous = day.section;
        last = null;
        inDay = group.day;
      }
      const hour = this.#hours.get(group.key) ?? this.#makeHour(group);
      keep(day.hours, hour.section, last);
      last = hour.section;
      const { columns, row, step } = this.#size, { length } = group.faces;
      hour.number.textContent = length;
      hour.section.style.width = `${Math.min(length, columns) * step}px`;
      hour.list.style.height = `${Math.ceil(length / columns) * row}px`;
    }
    drop(this.#days, days);
    drop(this.#hours, hours);
    this.label();
  }

  #makeDay(group) {
    const name = document.createTextNode(""), number = make("span");
    const heading = make("h2", { id: `day-${group.day}` }, name, number);
    const hours = make("div", { className: "hours" });
    const section = make("section", { className: "day", "aria-labelledby": heading.id }, heading, hours);
    const day = { section, hours, name, number, time: midnight(group.time) };
    this.#days.set(group.day, day);
    return day;
  }

  #nameDay(key, day) {
    const today = dayKey(new Date()), yesterday = dayKey(midnight(new Date(), -1));
    const near = { [today]: "Today, ", [yesterday]: "Yesterday, " }[key] ?? "";
    const number = this.on.count(key);
    day.name.data = near + date(day.time);
    day.number.textContent = number === null ? "" : count(number, "face");
  }

  #makeHour(group) {
    const number = make("span");
    const name = make("time", { dateTime: group.time.toISOString(), textContent: `${two(group.time.getHours())}:00` });
    const list = make("ul", { className: "tiles" });
    const section = make("div", { className: "hour" }, make("h3", {}, name, number), list);
    const hour = { section, list, number, tiles: new Map() };
    this.#hours.set(group.key, hour);
    return hour;
  }

  /** Note where each hour's tiles stand in the page. */
  #lay() {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#laid = this.#groups.map((group) => {
      const hour = this.#hours.get(group.key);
      const { top, bottom, left } = hour.list.getBoundingClientRect();
      return { hour, group, left, top: top + scrollY, bottom: bottom + scrollY };
    });
  }

  #draw() {
    cancelAnimationFrame(this.#asked);
    this.#asked = 0;
    this.#lay();
    const from = scrollY - innerHeight * MARGIN, to = scrollY + innerHeight * (1 + MARGIN);
    const head = scrollY + this.#header + 40;
    let seen = null;
    for (const { hour, group, top, bottom } of this.#laid) {
      const far = bottom < from || top > to;
      if (!far || hour.tiles.size) this.#fill(hour, group, from - top, far ? from - top : to - top);
      if (!seen && bottom > head) seen = group;
    }
    this.#settle();
    if (seen) this.on.seen(seen);
    if ((this.#laid.at(-1)?.bottom ?? 0) - scrollY < innerHeight * 3) this.on.near();
  }

  /** Have those tiles of an hour in the page whose rows lie between two heights; and the one with the focus. */
  #fill(hour, group, from, to) {
    const { columns, row, step } = this.#size;
    const first = Math.max(0, Math.floor(from / row)) * columns;
    const end = Math.min(group.faces.length, Math.max(0, Math.ceil(to / row)) * columns);
    const wanted = new Set();
    const focused = document.activeElement?.dataset?.key;
    let previous = null;
    const put = (index) => {
      const face = group.faces[index];
      wanted.add(face.key);
      const tile = hour.tiles.get(face.key) ?? this.#makeTile(hour, face);
      const place = `${Math.floor(index / columns)},${index % columns},${this.#size.tile}`;
      if (tile.placed !== place) {
        tile.style.top = `${Math.floor(index / columns) * row}px`;
        tile.style.left = `${(index % columns) * step}px`;
        tile.placed = place;
      }
      keep(hour.list, tile, previous);
      previous = tile;
    };
    const held = focused && hour.tiles.has(focused) ? group.faces.findIndex((face) => face.key === focused) : -1;
    if (held >= 0 && held < first) put(held);
    for (let index = first; index < end; index++) put(index);
    if (held >= 0 && held >= end) put(held);
    drop(hour.tiles, wanted);
  }

  #makeTile(hour, face) {
    const time = clock(new Date(face.at));
    const image = make("img", { alt: nameOf(face), decoding: "async", draggable: false, src: thumbUrl(face) });
    const caption = make("span", { className: "cap", "aria-hidden": "true" }, make("b", { textContent: time }), make("span", { textContent: face.camera }));
    const link = make("a", { href: faceUrl(face), tabIndex: -1, "data-key": face.key, title: `${face.site}/${face.camera}` }, image, caption);
    const tile = make("li", {}, link);
    hour.tiles.set(face.key, tile);
    const until = this.#fresh.get(face.key) - performance.now();
    if (until > 0) {
      link.classList.add("new");
      setTimeout(() => { link.classList.remove("new"); this.#fresh.delete(face.key); }, until);
    }
    return tile;
  }

  /** One tile is in the order of the Tab key: the current one, or the first in sight. */
  #settle() {
    if (this.#current && this.#tile(this.#current)) return;
    const head = this.#header;
    const links = [...this.#root.querySelectorAll("a[data-key]")];
    const first = links.find((link) => link.getBoundingClientRect().top >= head) ?? links[0];
    this.#choose(first?.dataset.key ?? null);
  }

  #choose(key) {
    if (this.#current && this.#current !== key) this.#tile(this.#current)?.setAttribute("tabindex", "-1");
    this.#current = key;
    if (key) this.#tile(key)?.setAttribute("tabindex", "0");
  }

  #key(event) {
    if (event.altKey || event.metaKey || event.shiftKey || !event.target.dataset.key) return;
    const found = this.#faces.find(event.target.dataset.key);
    if (!found) return;
    this.#lay();
    const { columns, step } = this.#size;
    const at = this.#laid.findIndex(({ group }) => group === found.group);
    const to = moved(event, this.#laid, { columns, step }, [at, found.index]);
    if (!to) return;
    event.preventDefault();
    this.show(this.#laid[to[0]].group.faces[to[1]].key);
  }

  #places() {
    return new Map([...this.#root.querySelectorAll("a[data-key]")].map((link) => [link.dataset.key, link.getBoundingClientRect()]));
  }

  /** Move tiles from where they were to where they are, and let new ones fade in. */
  #slide(was) {
    for (const link of this.#root.querySelectorAll("a[data-key]")) {
      const old = was.get(link.dataset.key), now = link.getBoundingClientRect();
      if (now.bottom < 0 || now.top > innerHeight) continue;
      const frames = old
        ? { transform: [`translate(${old.left - now.left}px, ${old.top - now.top}px)`, "none"] }
        : { opacity: [0, 1], transform: ["translateX(-1.5rem) scale(.9)", "none"] };
      if (old && old.left === now.left && old.top === now.top) continue;
      link.animate(frames, { duration: 320, easing: "cubic-bezier(.2, .7, .2, 1)" });
    }
  }
}

/** Ask for a picture once more: a network that changes ends all requests. Then say that there is none. */
function again(image) {
  const { dataset, src } = image;
  if (dataset.again) image.closest("a").classList.add("gone");
  else setTimeout(() => { dataset.again = "1"; image.src = src; }, AGAIN_MS);
}

/** Remove from the page, and from the map, what is not wanted any more. */
function drop(map, wanted) {
  for (const [key, kept] of map) {
    if (wanted.has(key)) continue;
    (kept.section ?? kept).remove();
    map.delete(key);
  }
}

/** Have a child stand in its parent after another one, or first. */
function keep(parent, child, previous) {
  const after = previous ? previous.nextSibling : parent.firstChild;
  if (child !== after) parent.insertBefore(child, after);
}
