// What is asked for, as the address has it and as the fields at the top show it.

import { ask, byId, make } from "./common.js";

const camera = byId("camera"), quality = byId("quality"), least = byId("least");

/** Return what the address asks for; what cannot be read there is not asked for. */
export function read() {
  const values = new URLSearchParams(location.search);
  const [at, wanted] = [values.get("at") ?? "", Number(values.get("quality"))];
  return {
    site: values.get("site") ?? "", camera: values.get("camera") ?? "",
    at: Number.isNaN(Date.parse(at)) ? "" : at, quality: wanted > 0 && wanted <= 1 ? wanted : "",
  };
}

/** Have the fields show it, also a place of which nothing is known. */
export function show(asked) {
  const value = asked.site || asked.camera ? `${asked.site}/${asked.camera}` : "";
  if (![...camera.options].some((option) => option.value === value)) {
    camera.append(make("option", { value, textContent: [asked.site, asked.camera].filter(Boolean).join(" / ") }));
  }
  camera.value = value;
  quality.value = asked.quality || 0;
  say();
}

/** Offer the places that there are. */
export async function places() {
  const { sites } = await ask("/api/places");
  const options = sites.map(({ site, cameras }) => {
    const each = cameras.map((name) => make("option", { value: `${site}/${name}`, textContent: name }));
    if (sites.length === 1) return each;
    return [make("optgroup", { label: site }, make("option", { value: `${site}/`, textContent: `All of ${site}` }), ...each)];
  });
  camera.replaceChildren(camera.options[0], ...options.flat());
}

/** Call `go` with what the reader changes. */
export function onChange(go) {
  camera.addEventListener("change", () => {
    const [site = "", name = ""] = camera.value.split("/");
    go({ site, camera: name });
  });
  quality.addEventListener("input", say);
  quality.addEventListener("change", () => go({ quality: Number(quality.value) || "" }));
}

function say() {
  const value = Number(quality.value);
  least.textContent = value ? `${value.toFixed(2)} or more` : "any";
  quality.setAttribute("aria-valuetext", least.textContent);
}
