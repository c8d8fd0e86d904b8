// Where frames are drawn: the branches of a tree that are wide enough in a window, as rectangles by row.

/** Narrower frames are not drawn, nor what is behind them: half a pixel. */
const MIN_WIDTH = 0.5;

/** The part of the root's width that is visible, from 0 to 1. */
const EVERYTHING = Object.freeze({ from: 0, to: 1 });

/** Rows of `{ branch, x, width }` in pixels, from left to right; the first row is the root's. */
function layOut(tree, visible, pixels) {
  const rows = [];
  const root = tree.root;
  if (root.width === 0) return rows;
  const scale = pixels / (root.width * (visible.to - visible.from));
  const origin = root.start + visible.from * root.width;
  const pending = [root];
  while (pending.length) {
    const branch = pending.pop();
    const left = Math.max(0, (branch.start - origin) * scale);
    const right = Math.min(pixels, (branch.start + branch.width - origin) * scale);
    if (right - left < MIN_WIDTH) continue;
    (rows[branch.depth] ??= []).push({ branch, x: left, width: right - left });
    // Last first, so that rows fill from left to right.
    for (let i = branch.children.length - 1; i >= 0; i--) pending.push(branch.children[i]);
  }
  return rows;
}

/** The window that a branch fills. */
function windowOf(branch) {
  const root = branch.tree.root;
  return branch === root
    ? EVERYTHING
    : {
        from: (branch.start - root.start) / root.width,
        to: (branch.start - root.start + branch.width) / root.width,
      };
}

/** The window around `at` (from 0 to 1 of the window) when it gets `factor` times as wide. */
function scaled(visible, at, factor) {
  const width = Math.min(1, Math.max(1e-9, (visible.to - visible.from) * factor));
  const fixed = visible.from + at * (visible.to - visible.from);
  return moved({ from: fixed - at * width, to: fixed + (1 - at) * width }, 0);
}

/** The window moved by a share of its width, as far as there is something. */
function moved(visible, by) {
  const width = visible.to - visible.from;
  const from = Math.min(1 - width, Math.max(0, visible.from + by * width));
  return { from, to: from + width };
}

/** The rectangle of a row at `x`, if there is one. */
function rectAt(row, x) {
  let [low, high] = [0, row.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (row[middle].x + row[middle].width <= x) low = middle + 1;
    else high = middle;
  }
  return low < row.length && row[low].x <= x ? row[low] : null;
}
