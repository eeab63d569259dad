// Where the arrow keys lead among the tiles.

const PAGE_ROWS = 3;

/**
 * Return the hour and the place in it to which a key leads, or null for any other key.
 * @param laid the hours as they stand in the page: `group`, and `top` and `left` of its tiles.
 * @param size `columns` of a full row, and the `step` from one to the next in pixels.
 * @param place the hour and the place in it where the reader is.
 */
export function moved({ key, ctrlKey }, laid, { columns, step }, [at, index]) {
  if (at < 0) return null;
  const length = (hour) => laid[hour].group.faces.length;
  const vertically = (way, rows = 1) => {
    let place = [at, index];
    while (rows--) place = beside(laid, { columns, step }, place, way);
    return place;
  };
  const first = index - (index % columns);
  const moves = {
    ArrowRight: () => (index + 1 < length(at) ? [at, index + 1] : laid[at + 1] ? [at + 1, 0] : [at, index]),
    ArrowLeft: () => (index > 0 ? [at, index - 1] : at > 0 ? [at - 1, length(at - 1) - 1] : [at, index]),
    ArrowDown: () => vertically(1),
    ArrowUp: () => vertically(-1),
    PageDown: () => vertically(1, PAGE_ROWS),
    PageUp: () => vertically(-1, PAGE_ROWS),
    Home: () => (ctrlKey ? [0, 0] : [at, first]),
    End: () => (ctrlKey ? [laid.length - 1, length(laid.length - 1) - 1] : [at, Math.min(first + columns, length(at)) - 1]),
  };
  return moves[key] && (!ctrlKey || key === "Home" || key === "End") ? moves[key]() : null;
}

/** The tile above or below one; hours without many faces share a row. */
function beside(laid, { columns, step }, [at, index], way) {
  const { length } = laid[at].group.faces;
  const row = Math.floor(index / columns) + way;
  if (row >= 0 && row * columns < length) return [at, Math.min(index + way * columns, length - 1)];
  const x = laid[at].left + (index % columns) * step;
  const level = (one, other) => Math.abs(one.top - other.top) < 1;
  let other = at;
  while (laid[other] && level(laid[other], laid[at])) other += way;
  if (!laid[other]) return [at, index];
  const beyond = laid.map((each, n) => [each, n]).filter(([each]) => level(each, laid[other]));
  const [found, n] = beyond.findLast(([each]) => each.left <= x + 1) ?? beyond[0];
  const last = found.group.faces.length - 1;
  const first = way > 0 ? 0 : Math.floor(last / columns) * columns;
  return [n, Math.min(first + Math.round((x - found.left) / step), last)];
}
