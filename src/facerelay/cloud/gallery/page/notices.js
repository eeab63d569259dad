// What stands at the end of the wall, or in its place: what is the matter, and what to do next.

import { make, moment } from "./common.js";

/**
 * Return it, as elements.
 * @param at `failed` or null, `size` of the wall, `next` page or null, `weary` after many pages without a face,
 *   `searched` back to when, and `asked` for what.
 * @param acts `retry`, `further`, and `all` faces.
 */
export function ending({ failed, size, next, weary, searched, asked }, acts) {
  if (failed) return failure(failed.error, size, acts.retry);
  const none = narrowed(asked);
  const looked = searched ? `Looked back to ${moment(searched)}.` : "";
  if (next && weary) {
    const on = button("Look further back", acts.further);
    return size ? [text(looked || "No faces for a while."), on] : [notice("No faces so far", text(`${looked} ${none ?? ""}`), on)];
  }
  if (next) return size ? [] : [text(`Looking further back… ${looked}`)];
  if (size) return [text("That is the earliest face here.")];
  if (none) return [notice("No such faces", text(none), button("Show all faces", acts.all, "main"))];
  return [notice("No faces yet", text("They appear here by themselves, a moment after they land in the bucket."), make("dl", {},
    command("Start a camera, at the edge", "facerelay capture -c edge.toml"),
    command("Or send one picture through the whole chain", "facerelay send portrait.jpg -c edge.toml"),
    command("Does it all fit together?", "facerelay doctor -c edge.toml")))];
}

export const text = (words) => make("p", { textContent: words });

function failure(error, size, retry) {
  if (size) return [text(error.message), button("Try again", retry)];
  const again = button("Try again", retry, "main");
  if (error.status === 0) {
    return [notice("The gallery does not answer", text("Is it still running? This page tries again by itself."),
      make("dl", {}, command("Start it", "facerelay gallery -c cloud.toml")), again)];
  }
  return [notice("The bucket cannot be read", text(error.message),
    make("dl", {}, command("What is wrong, and what to do", "facerelay doctor -c cloud.toml")),
    text("This page tries again by itself. What stores faces is not held up by it."), again)];
}

/** Say what the faces are narrowed down to; null where they are not. */
function narrowed({ site, camera, at, quality }) {
  const parts = [camera ? `at ${site ? `${site}, ` : ""}${camera}` : site && `at ${site}`, quality && `with a quality of ${quality.toFixed(2)} or more`, at && `before ${moment(at)}`].filter(Boolean);
  return parts.length ? `There are no faces ${parts.join(", ")}.` : null;
}

function button(words, act, kind = "") {
  const made = make("button", { type: "button", className: kind, textContent: words });
  made.addEventListener("click", act);
  return made;
}

const notice = (title, ...rest) => make("div", { className: "notice" }, make("h2", { textContent: title }), ...rest);
const command = (what, line) => make("div", {}, make("dt", { textContent: what }), make("dd", {}, make("code", { textContent: line })));
