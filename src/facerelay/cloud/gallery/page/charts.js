// Bars of hours and bands of trouble, drawn as SVG.

const SVG = "http://www.w3.org/2000/svg";

/** Make an SVG element with attributes and children. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const FAINT = 4;

const lostIn = (hour) => Math.max(0, hour.dropped) + Math.max(0, hour.refused);

/** Return the bars of some hours: what was captured, on top of it what was lost; a stub where nothing was heard (null). */
function bars(hours, { left = 0, top = 0, width, height, gap }) {
  const told = hours.filter((hour) => hour && hour !== "to come");
  const most = Math.max(1, ...told.map((hour) => Math.max(hour.captured, lostIn(hour))));
  const step = width / hours.length;
  const found = [];
  hours.forEach((hour, n) => {
    const x = left + n * step + gap / 2;
    const bar = (name, from, part) => draw("rect", {
      class: name, x, width: Math.max(1, step - gap), y: top + height - from - part, height: part,
    });
    if (hour === "to come") return;
    if (!hour) {
      found.push(bar("unheard", 0, FAINT));
      return;
    }
    const lost = (lostIn(hour) / most) * height;
    const came = Math.max(0, (hour.captured / most) * height - lost);
    if (came) found.push(bar("came", 0, Math.max(1.5, came)));
    if (lost) found.push(bar("lost", came, Math.max(3, lost)));
  });
  return { found, most };
}

/** Return a small chart of the last 24 hours of a camera. */
export function spark(hours, label) {
  const box = draw("svg", { class: "spark", viewBox: "0 0 144 32", preserveAspectRatio: "none", role: "img", "aria-label": label });
  box.append(...bars(hours, { width: 144, height: 30, top: 1, gap: 1 }).found, draw("path", { class: "axis", d: "M0 31.5H144" }));
  return box;
}

/**
 * Return the chart of a period: bars by the hour, and below them each band of trouble on the same axis.
 * `rows` are bands by what they are of; `tick` gives an hour's name, or nothing.
 */
export function chart({ hours, start, end, rows, tick, label, width }) {
  const height = 120, left = 0;
  const deep = height + 22 + rows.length * 26;
  const box = draw("svg", { viewBox: `0 0 ${width} ${deep}`, width, height: deep, role: "img", "aria-label": label });
  const { found, most } = bars(hours, { left, top: 14, width, height: height - 14, gap: hours.length > 60 ? 1 : 4 });
  box.append(...found, draw("path", { class: "axis", d: `M0 ${height + .5}H${width}` }));
  box.append(draw("text", { x: 0, y: 9 }, `${most} an hour`));
  hours.forEach((_, n) => {
    const name = tick(n);
    if (name) box.append(draw("text", { x: (n / hours.length) * width, y: height + 14 }, name));
  });
  const at = (time) => Math.min(width, Math.max(0, ((time - start) / (end - start)) * width));
  rows.forEach(({ name, bands }, n) => {
    const y = height + 22 + n * 26;
    for (const band of bands) {
      const x = at(new Date(band.start));
      box.append(draw("rect", { class: `band ${band.kind}`, x, y: y + 13, height: 5, width: Math.max(2, at(new Date(band.end)) - x), rx: 1 }));
    }
    box.append(draw("text", { x: 0, y: y + 9 }, name));
  });
  return box;
}
