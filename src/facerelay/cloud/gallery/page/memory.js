// Where the reader was on the wall, for the way back from a face's page; kept in this tab alone, as keys.

import { fromKey } from "./faces.js";

const MOST = 15_000;
const KEPT_MS = 30 * 60_000;

/** Note the wall at an address: its faces' keys, where it goes on, how far down it was, which face was opened. */
export function keep(search, wall) {
  if (!wall.keys.length || wall.keys.length > MOST) return;
  try {
    sessionStorage.setItem("wall", JSON.stringify({ search, when: Date.now(), ...wall }));
  } catch { sessionStorage.removeItem("wall"); } // it is full
}

/** Return what was noted of an address a while ago at most, with faces in place of keys; or null. */
export function recall(search) {
  const kept = JSON.parse(sessionStorage.getItem("wall") || "null");
  if (kept?.search !== search || Date.now() - kept.when > KEPT_MS) return null;
  const erased = new Set(JSON.parse(sessionStorage.getItem("erased") || "[]"));
  const faces = kept.keys.filter((key) => !erased.has(key)).map(fromKey).filter(Boolean);
  return faces.length ? { ...kept, faces } : null;
}
