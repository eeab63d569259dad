// One face's page: its picture, all that is known of it, its neighbours; download and erase.

import { Live, ask, byId, clock, erase, faceUrl, fullDate, make, nameOf, pictureUrl, query, settings, thumbUrl } from "./common.js";
import { facts } from "./facts.js";

const sure = byId("sure"), main = byId("face"), picture = byId("picture");
let shown = null, version = 0, mayErase = false, leaving = false;

const wallUrl = `/${sessionStorage.getItem("last") ?? ""}`;
for (const link of document.querySelectorAll(".bar a[href='/']")) link.href = wallUrl;
byId("back").addEventListener("click", () => sessionStorage.setItem("return", "1"));

function toWall() {
  sessionStorage.setItem("return", "1");
  location.assign(wallUrl);
}

async function show(key, face = null) {
  const mine = ++version;
  if (face) head(face);
  try {
    const answer = await ask(`/api/face${query({ key })}`);
    if (mine !== version) return;
    shown = answer;
    draw(answer);
  } catch (error) {
    if (mine === version) none(error);
  }
}

function head(face) {
  document.title = `${nameOf(face)} · facerelay`;
  picture.parentElement.classList.remove("gone");
  picture.src = pictureUrl(face);
  picture.alt = nameOf(face);
  byId("title").textContent = nameOf(face);
  byId("when").textContent = `${fullDate(new Date(face.time))} · ${face.site}`;
}

function draw(answer) {
  const { face, visit, earlier, later } = answer;
  head(face);
  byId("none").hidden = true;
  main.hidden = false;
  step("earlier", earlier);
  step("later", later);
  byId("download").href = `${pictureUrl(face)}&download=1`;
  byId("erase").hidden = !mayErase;
  byId("known").replaceChildren(...facts(answer));
  byId("visit").hidden = visit.length < 2;
  byId("visit").querySelector("span").textContent = `${visit.length} faces`;
  byId("visit").querySelector("ol").replaceChildren(...visit.map((each) => small(each, each.key === face.key)));
  byId("visit").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function small(face, current) {
  const link = make("a", { href: faceUrl(face) }, make("img", { src: thumbUrl(face), alt: nameOf(face), decoding: "async" }),
    make("span", { textContent: clock(new Date(face.time)), "aria-hidden": "true" }));
  if (current) link.setAttribute("aria-current", "true");
  link.addEventListener("click", (event) => { if (plain(event)) { event.preventDefault(); turn(face); } });
  return make("li", {}, link);
}

const plain = (event) => !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button);

function step(id, face) {
  const link = byId(id);
  if (face) link.href = faceUrl(face);
  else link.removeAttribute("href");
  link.onclick = (event) => { if (face && plain(event)) { event.preventDefault(); turn(face); } };
  if (face) new Image().src = pictureUrl(face); // it is likely to be the next
}

/** Show another face in the place of this one; the way back still leads to the wall. */
function turn(face) {
  history.replaceState(null, "", faceUrl(face));
  byId("said").textContent = nameOf(face);
  show(face.key, face);
}

function none(error) {
  main.hidden = true;
  const gone = error.status === 404 || error.status === 400;
  const title = gone ? "This face is not here" : error.status === 0 ? "The gallery does not answer" : "The face can’t be read";
  const why = gone ? "It was erased, its time was up, or the address is not that of a face." : error.message;
  const again = make("button", { type: "button", textContent: "Try again" });
  again.addEventListener("click", () => show(keyOf()));
  const back = make("a", { className: "button main", href: wallUrl, textContent: "Back to the wall" });
  byId("none").replaceChildren(make("h1", { textContent: title }), make("p", { textContent: why }),
    make("div", { className: "acts" }, ...(gone ? [back] : [again, back])));
  byId("none").hidden = false;
}

// Erasing.

byId("erase").addEventListener("click", () => {
  const { face, visit } = shown;
  byId("sure-picture").src = thumbUrl(face);
  byId("sure-picture").alt = nameOf(face);
  const others = visit.length - 1;
  byId("sure-visit").hidden = others < 1;
  byId("sure-visit").querySelector("span").textContent = others === 1 ? "And the other face of this visit" : `And the ${others} other faces of this visit`;
  byId("sure-visit").querySelector("input").checked = false;
  byId("sure-fault").hidden = true;
  sure.showModal();
});
byId("sure-no").addEventListener("click", () => sure.close());
sure.addEventListener("click", (event) => { if (event.target === sure) sure.close(); });
byId("sure-yes").addEventListener("click", async ({ target }) => {
  const all = byId("sure-visit").querySelector("input").checked;
  target.disabled = leaving = true;
  try {
    await erase(all ? shown.visit.map(({ key }) => key) : [shown.face.key]);
    sure.close();
    toWall();
  } catch (error) {
    byId("sure-fault").textContent = error.message;
    byId("sure-fault").hidden = false;
    leaving = false;
  }
  target.disabled = false;
});

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || sure.open || !plain(event)) return;
  const to = { ArrowLeft: shown?.earlier, ArrowRight: shown?.later }[event.key];
  if (event.key === "Escape") toWall();
  else if (to) { event.preventDefault(); turn(to); }
});
picture.addEventListener("error", () => picture.parentElement.classList.add("gone"));

const keyOf = () => new URLSearchParams(location.search).get("key") ?? "";
addEventListener("popstate", () => show(keyOf()));
settings.then(({ erase: may }) => { mayErase = Boolean(may); byId("erase").hidden = !may; });
new Live({
  erased: (keys) => {
    if (leaving) return;
    if (keys.includes(keyOf())) none({ status: 404 });
    else if (shown?.visit.some(({ key }) => keys.includes(key))) show(keyOf());
  },
}).follow("/api/live");
show(keyOf());
