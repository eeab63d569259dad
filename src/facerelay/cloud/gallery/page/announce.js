// Tells of new faces: to who listens rather than looks, and in the title of a page that is hidden.

import { byId, clock, count, nameOf } from "./common.js";

const SAY_MS = 8000;
const SOON_MS = 300;
const TITLE = document.title;

let said = 0, unsaid = 0, timer = 0;

/** Read out a new face, or several together when there are many. */
export function announce(face) {
  unsaid += 1;
  if (document.hidden) document.title = `(${count(unsaid, "new face")}) facerelay`;
  clearTimeout(timer);
  timer = setTimeout(() => {
    said = Date.now();
    const latest = `the latest at ${face.camera}, ${clock(new Date(face.time))}`;
    byId("said").textContent = unsaid === 1 ? nameOf(face) : `${count(unsaid, "new face")}, ${latest}`;
    if (!document.hidden) unsaid = 0;
  }, Math.max(SOON_MS, said + SAY_MS - Date.now()));
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  document.title = TITLE;
  unsaid = 0;
});
