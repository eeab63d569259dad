// The faces that the wall knows, newest first, and in groups of an hour as the reader's clock has it.

import { dayKey, two } from "./common.js";

/** True where `a` stands before `b`: newer, and by key where the times agree. */
const before = (a, b) => (a.at !== b.at ? a.at > b.at : a.key > b.key);

/** Where in a sorted list a face stands, or would. */
function place(list, face) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (before(list[middle], face)) low = middle + 1;
    else high = middle;
  }
  return low;
}

const KEY = /^faces\/site=([^/]+)\/camera=([^/]+)\/date=([^/]+)\/hour=\d\d\/(\d\d)(\d\d)([\d.]+)-(.{36})-[0-9a-f]{8}\./;

/** Return what a key says by itself, in the form of the server's answers. */
export function fromKey(key) {
  const found = KEY.exec(key);
  if (!found) return null;
  const [, site, camera, date, hour, minute, second, id] = found;
  return { key, id, site, camera, time: `${date}T${hour}:${minute}:${second}Z`, quality: null, width: null, height: null };
}

export class Faces {
  #groups = new Map();
  #order = [];
  #known = new Map();

  get size() { return this.#known.size; }
  get groups() { return this.#order; }
  get oldest() { return this.#order.at(-1)?.faces.at(-1) ?? null; }
  get newest() { return this.#order[0]?.faces[0] ?? null; }

  has(key) { return this.#known.has(key); }
  get(key) { return this.#known.get(key); }

  clear() {
    this.#groups.clear();
    this.#order = [];
    this.#known.clear();
  }

  /** Take in a face; false where it is there already. */
  add(face) {
    if (this.#known.has(face.key)) return false;
    const time = new Date(face.time);
    const known = { ...face, at: time.getTime() };
    const group = this.#group(time);
    group.faces.splice(place(group.faces, known), 0, known);
    this.#known.set(face.key, known);
    return true;
  }

  remove(key) {
    const face = this.#known.get(key);
    if (!face) return false;
    this.#known.delete(key);
    const group = this.#groups.get(hourKey(new Date(face.at)));
    group.faces.splice(group.faces.indexOf(face), 1);
    if (!group.faces.length) {
      this.#groups.delete(group.key);
      this.#order.splice(this.#order.indexOf(group), 1);
    }
    return true;
  }

  /** Return the group of a face and its place there. */
  find(key) {
    const face = this.#known.get(key);
    if (!face) return null;
    const group = this.#groups.get(hourKey(new Date(face.at)));
    return { group, index: group.faces.indexOf(face) };
  }

  keys() { return this.#order.flatMap((group) => group.faces.map((face) => face.key)); }

  #group(time) {
    const key = hourKey(time);
    let group = this.#groups.get(key);
    if (!group) {
      group = { key, day: dayKey(time), time: new Date(time.getFullYear(), time.getMonth(), time.getDate(), time.getHours()), faces: [] };
      this.#groups.set(key, group);
      const at = this.#order.findIndex((other) => other.key < key);
      this.#order.splice(at < 0 ? this.#order.length : at, 0, group);
    }
    return group;
  }
}

export const hourKey = (time) => `${dayKey(time)} ${two(time.getHours())}`;
