// What is known of a face, with labels and units for people.

import { clock, count, fullDate, make } from "./common.js";

const PARTS = {
  size: "Size", sharpness: "Sharpness", frontality: "Facing the camera", exposure: "Exposure", edge: "Clear of the edge",
  score: "Detector’s score",
};
const CLOCKS = {
  synchronised: "Synchronised", unsynchronised: "Not synchronised: the time may be wrong", unknown: "Not known whether synchronised",
};
const SHOWN = new Set(["id", "site", "camera", "time", "quality", "parts", "score", "box", "frame", "track", "clock", "thinned", "outbox", "run", "seq", "software", "sha256", "format", "description", "width", "height", "fault", "sealed"]);

/** Return the lists that describe a face, as `/api/face` tells of it. */
export function facts({ face, exif = {}, visit, bytes, seal }) {
  const time = new Date(face.time);
  const { box, frame, parts = {}, thinned } = exif;
  const width = exif.width ?? face.width, height = exif.height ?? face.height;
  const quality = exif.quality ?? face.quality;
  return [
    seal && list("Its seal", [
      ["Picture", seal.opened ? "Sealed, and opened here with the private key" : bad(`Sealed: ${seal.fault}`)],
      ["Sealed by", seal.signed_by],
      ["Its key", seal.revoked && bad("Revoked since: whoever held it may have sealed this later")],
      ["Signature", seal.doubt && bad(seal.doubt)],
    ]),
    list("Where and when", [
      ["Taken", [`${fullDate(time)}, ${clock(time)}`, hint(`${time.toISOString().replace("T", " ").replace("Z", "")} UTC`)]],
      ["Camera", face.camera],
      ["Site", face.site],
      ["Visit", exif.track !== undefined && [`Number ${exif.track}`, hint(count(visit.length, "picture"))]],
      ["Clock", CLOCKS[exif.clock] ?? exif.clock],
    ]),
    list("How good a picture", [
      ["Quality", share(quality)],
      ...Object.entries(parts).map(([name, value]) => [PARTS[name] ?? name, share(value)]),
      ["Detector’s score", parts.score === undefined && exif.score !== undefined && share(exif.score)],
    ]),
    list("The picture", [
      ["Fault", exif.fault && bad(exif.fault)],
      ["Format", exif.format],
      ["Size", width && height && `${width} × ${height} px`],
      ["File", bytes !== undefined && kilobytes(bytes)],
      ["Face in the frame", box && [`${box[2]} × ${box[3]} px, ${box[0]} from the left, ${box[1]} from the top`, frame && diagram(box, frame)]],
      ["Frame", frame && `${frame[0]} × ${frame[1]} px`],
      ["Made smaller", thinned && `For a thin line: quality ${thinned.quality}${thinned.side ? `, ${thinned.side} px at most` : ""}`],
    ]),
    list("Its way", [
      ["Number", exif.seq !== undefined && [`${exif.seq}`, hint("in its outbox")]],
      ["Outbox", exif.outbox && mono(exif.outbox)],
      ["Opening", exif.run && mono(exif.run)],
      ["Written by", exif.software],
      ["Id", mono(face.id)],
      ["SHA-256", exif.sha256 && mono(exif.sha256)],
      ["Key", mono(face.key)],
      ...Object.entries(exif).filter(([name]) => !SHOWN.has(name)).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
    ]),
  ].filter(Boolean).flat();
}

function list(title, rows) {
  const told = rows.filter(([, value]) => value !== undefined && value !== null && value !== false && value !== "");
  if (!told.length) return null;
  const shown = told.map(([label, value]) => make("div", {}, make("dt", { textContent: label }), make("dd", {}, ...[value].flat().filter(Boolean))));
  return [make("h2", { textContent: title }), make("dl", {}, ...shown)];
}

const bad = (text) => make("span", { className: "bad", textContent: text });
const hint = (text) => make("small", { textContent: text });
const mono = (text) => make("span", { className: "mono", textContent: text });
const kilobytes = (bytes) => (bytes < 10_000 ? `${bytes.toLocaleString("en-GB")} bytes` : `${(bytes / 1000).toFixed(1)} kB`);

/** A number from 0 to 1, with a bar. */
function share(value) {
  if (typeof value !== "number") return null;
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.setProperty("--of", Math.min(1, Math.max(0, value)));
  return make("div", { className: "share" }, make("span", { textContent: value.toFixed(2) }), bar);
}

/** Where in the camera's frame the face was. */
function diagram([x, y, width, height], [across, down]) {
  if (!(across > 0 && down > 0)) return null;
  const svg = (tag, values) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
    return made;
  };
  const all = svg("svg", { class: "frame", viewBox: `0 0 ${across} ${down}`, "aria-hidden": "true" });
  all.append(svg("rect", { class: "all", width: across, height: down }), svg("rect", { class: "box", x, y, width, height }));
  return all;
}
