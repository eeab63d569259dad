"use strict";

const grid = document.getElementById("faces");
const state = document.getElementById("state");
const empty = document.getElementById("empty");
const shown = new Map();
let first = true;

function card(face) {
  const figure = document.createElement("figure");
  const link = document.createElement("a");
  link.href = "/face/" + face.key;
  const image = document.createElement("img");
  image.src = link.href;
  image.loading = "lazy";
  image.alt = `A face at ${face.site}, ${face.camera}`;
  link.append(image);
  const caption = document.createElement("figcaption");
  const name = document.createElement("b");
  name.textContent = `${face.site}/${face.camera}`;
  const when = document.createElement("time");
  when.dateTime = face.time;
  when.textContent = new Date(face.time).toLocaleString();
  caption.append(name, when);
  figure.append(link, caption);
  return figure;
}

function show(faces) {
  const keys = new Set(faces.map((face) => face.key));
  for (const [key, figure] of shown) {
    if (!keys.has(key)) { figure.remove(); shown.delete(key); }
  }
  let before = grid.firstChild;
  for (const face of faces) {
    const known = shown.get(face.key);
    if (known) { before = known.nextSibling; continue; }
    const figure = card(face);
    if (!first) {
      figure.classList.add("new");
      setTimeout(() => figure.classList.remove("new"), 4000);
    }
    grid.insertBefore(figure, before);
    shown.set(face.key, figure);
  }
  first = false;
  empty.hidden = shown.size > 0;
}

let etag = "";

async function look() {
  try {
    const answer = await fetch("/latest", { cache: "no-store", headers: etag ? { "If-None-Match": etag } : {} });
    if (answer.status === 200) {
      etag = answer.headers.get("ETag") || "";
      show((await answer.json()).faces);
    } else if (answer.status !== 304) {
      throw new Error((await answer.json()).error);
    }
    state.className = "";
    state.textContent = shown.size ? `The newest ${shown.size} in the bucket, as they land` : "";
  } catch (error) {
    state.className = "fault";
    state.textContent = error instanceof TypeError ? "The gallery does not answer" : error.message;
  }
  setTimeout(look, document.hidden ? 5000 : 1000);
}

look();
