"use strict";

// A browser opens six connections to a host: four streams, the events, and one for all the rest.
const STREAMS = 4;
const SNAPSHOT_MS = 1000;
const AGAIN_MS = 5000;
const KEPT = 50;

const COUNTS = {
  frames: ["frames", "Frames that came"],
  inspected: ["inspected", "Frames that the detector was shown"],
  still: ["still", "Passed over: nothing had changed"],
  late: ["late", "Passed over: the camera was behind its time"],
  gaps: ["gaps", "How often the camera was gone"],
  faces: ["sent", "Faces sent"],
  without: ["no face", "Visits that ended without a face"],
};
const STATES = { live: "live", dark: "gone", ended: "ended", waiting: "waiting" };
const REASONS = {
  small: "Too small",
  "cut-off": "Cut off by the edge of the picture",
  averted: "Turned away",
  tilted: "Tilted too far",
  smeared: "Smeared",
  fleeting: "Seen well only once, and not surely",
  unsent: "Seen well, but no picture was due",
};
const LOOKS = { best: "good", kept: "good", sent: "sent" };

const byId = (id) => document.getElementById(id);
const state = byId("state");
const hold = byId("hold");
const panels = new Map();
let held = false;
let over = false;
let waiting = [];

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The cameras

class Panel {
  constructor(name) {
    this.name = name;
    this.seen = false;
    this.mode = "";
    this.timer = 0;
    this.fell = false;
    this.image = make("img", { className: "view", alt: `What camera ${name} sees, with its faces marked` });
    this.frozen = make("canvas", { className: "view", hidden: true });
    this.frozen.setAttribute("role", "img");
    this.frozen.setAttribute("aria-label", `The last picture of camera ${name}`);
    this.image.addEventListener("error", () => this.failed());
    this.image.addEventListener("load", () => this.loaded());
    this.pill = make("span", { className: "pill" });
    this.size = make("span", { className: "size" });
    this.large = make("button", { type: "button", textContent: "Enlarge" });
    this.large.setAttribute("aria-pressed", "false");
    this.large.setAttribute("aria-label", `Enlarge camera ${name}`);
    this.large.addEventListener("click", () => this.enlarge());
    this.counts = {};
    const counts = make("dl", { className: "counts" });
    for (const [key, [said, title]] of Object.entries(COUNTS)) {
      this.counts[key] = make("dd", { textContent: "0" });
      counts.append(make("div", { title }, make("dt", { textContent: said }), this.counts[key]));
    }
    const title = make("h2", { textContent: name, id: `camera-${name}` });
    const top = make("div", { className: "top" }, title, this.pill, this.size, this.large);
    this.element = make("section", { className: "camera" }, top, this.image, this.frozen, counts);
    this.element.setAttribute("aria-labelledby", title.id);
  }

  show(known) {
    this.pill.className = `pill ${known.state}`;
    this.pill.textContent = known.state === "dark" ? known.words : STATES[known.state];
    this.size.textContent = known.size[0] ? `${known.size[0]} × ${known.size[1]}` : "";
    for (const [key, element] of Object.entries(this.counts)) {
      element.textContent = known[key].toLocaleString();
    }
    this.counts.gaps.parentElement.className = known.gaps ? "some" : "";
  }

  enlarge() {
    const large = this.element.classList.toggle("large");
    this.large.setAttribute("aria-pressed", String(large));
    this.large.textContent = large ? "Reduce" : "Enlarge";
  }

  // "stream", "snapshots", or "" for neither: the last picture stays.
  turn(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    clearTimeout(this.timer);
    if (mode) this.load();
    else this.freeze();
  }

  freeze() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    if (width) {
      Object.assign(this.frozen, { width, height });
      this.frozen.getContext("2d").drawImage(this.image, 0, 0);
    }
    this.frozen.hidden = !width;
    this.image.hidden = Boolean(width);
    this.image.removeAttribute("src");
  }

  still() {
    return `/camera/${this.name}.jpg?at=${Date.now()}`;
  }

  load() {
    this.fell = false;
    this.image.src = this.mode === "stream" ? `/camera/${this.name}.mjpeg?at=${Date.now()}` : this.still();
  }

  loaded() {
    this.image.hidden = false;
    this.frozen.hidden = true;
    if (this.mode === "snapshots") this.timer = setTimeout(() => this.load(), SNAPSHOT_MS);
  }

  failed() {
    clearTimeout(this.timer);
    if (over || !this.mode) return;
    if (this.mode === "stream" && !this.fell) {
      this.fell = true;
      this.image.src = this.still();
    }
    this.timer = setTimeout(() => this.load(), AGAIN_MS);
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) panels.get(entry.target.dataset.name).seen = entry.isIntersecting;
  share();
});

// The first cameras in view get a stream, the others a picture each second, and nobody anything unseen.
function share() {
  let free = STREAMS;
  for (const panel of panels.values()) {
    if (held || over || document.hidden || !panel.seen) panel.turn("");
    else panel.turn(free-- > 0 ? "stream" : "snapshots");
  }
}

function showCameras(cameras) {
  for (const known of cameras) {
    let panel = panels.get(known.name);
    if (!panel) {
      panel = new Panel(known.name);
      panel.element.dataset.name = known.name;
      panels.set(known.name, panel);
      byId("cameras").append(panel.element);
      watcher.observe(panel.element);
    }
    panel.show(known);
  }
  byId("cameras").classList.toggle("alone", cameras.length === 1);
  const live = cameras.filter((known) => known.state === "live").length;
  tell(`${live} of ${cameras.length} ${cameras.length === 1 ? "camera" : "cameras"} live`);
}

// The faces, and the visits without one

function picture(kind, known) {
  if (!known.picture) return make("div", { className: "face", textContent: "no picture" });
  return make("img", {
    className: "face", src: `/${kind}/${known.number}.jpg?run=${run}`, loading: "lazy",
    alt: `The face of visit ${known.track} at camera ${known.camera}`,
  });
}

function who(known) {
  const time = make("time", {
    dateTime: known.time, textContent: new Date(known.time).toLocaleTimeString(),
    title: new Date(known.time).toLocaleString(),
  });
  return make("div", { className: "who" }, make("b", { textContent: `${known.camera} #${known.track}` }), time);
}

function bar(name, value) {
  const meter = make("meter", { min: 0, max: 1, low: 0.35, high: 1, optimum: 1, value });
  meter.setAttribute("aria-label", name);
  meter.title = `${name}: ${value.toFixed(2)}`;
  return make("div", {}, make("span", { textContent: name }), meter);
}

function faceItem(known) {
  const total = make("p", { className: "total" }, "quality ", make("b", { textContent: known.quality.toFixed(2) }),
    `, ${known.size[0]} × ${known.size[1]} pixels`);
  const parts = Object.entries(known.parts).map(([name, value]) => bar(name, value));
  return make("li", {}, picture("face", known),
    make("div", {}, who(known), total, make("div", { className: "parts" }, ...parts)));
}

function visitItem(known) {
  const looks = {};
  for (const [verdict, n] of Object.entries(known.looks)) {
    const name = LOOKS[verdict] || verdict;
    looks[name] = (looks[name] || 0) + n;
  }
  const all = Object.values(looks).reduce((sum, n) => sum + n, 0);
  const told = Object.entries(looks).map(([name, n]) => `${n} ${name}`).join(", ");
  const best = known.quality === null ? "" : `; best quality ${known.quality.toFixed(2)}`;
  return make("li", {}, picture("visit", known), make("div", {}, who(known),
    make("p", { className: "reason", textContent: REASONS[known.reason] || known.reason }),
    make("p", { className: "looks", textContent: `${all} ${all === 1 ? "look" : "looks"} in ${known.seconds} s: ${told}${best}` })));
}

let backlog = true;

function add(kind, items) {
  if (held) { waiting.push([kind, items]); waiting = waiting.slice(-KEPT); return; }
  const list = byId(kind);
  for (const known of items) {
    const item = kind === "faces" ? faceItem(known) : visitItem(known);
    if (!backlog) item.className = "new";
    list.prepend(item);
    list.dataset.last = known.number;
  }
  while (list.children.length > KEPT) list.lastElementChild.remove();
  byId(`${kind}-none`).hidden = true;
  const last = Number(list.dataset.last);
  byId(`${kind}-count`).textContent = last > list.children.length
    ? `the last ${list.children.length} of ${last.toLocaleString()}` : last.toLocaleString();
}

function clear(kind) {
  byId(kind).replaceChildren();
  byId(`${kind}-count`).textContent = "";
  byId(`${kind}-none`).hidden = false;
}

// What is told

let run = "";

function tell(words, fault = false) {
  if (state.textContent !== words) state.textContent = words;
  state.className = fault ? "fault" : "";
}

function listen() {
  const source = new EventSource("/events");
  const on = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  on("hello", (known) => {
    if (run && known.run !== run) { location.reload(); return; }
    run = known.run;
    waiting = [];
    backlog = true;
    clear("faces");
    clear("visits");
    setTimeout(() => { backlog = false; }, 1000);
  });
  on("cameras", showCameras);
  on("faces", (items) => add("faces", items));
  on("visits", (items) => add("visits", items));
  on("end", () => {
    over = true;
    share();
    for (const panel of panels.values()) Object.assign(panel.pill, { className: "pill", textContent: STATES.ended });
    tell("The capture has ended");
  });
  source.addEventListener("error", () => {
    if (!over) tell("The capture does not answer; trying again", true);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  });
}

hold.addEventListener("click", () => {
  held = !held;
  hold.setAttribute("aria-pressed", String(held));
  hold.textContent = held ? "Go on" : "Hold";
  if (!held) {
    const missed = waiting;
    waiting = [];
    for (const [kind, items] of missed) add(kind, items);
  }
  share();
});
document.addEventListener("visibilitychange", share);
listen();
