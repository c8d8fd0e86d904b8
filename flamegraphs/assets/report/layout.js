// Where frames are drawn: the branches of a tree that are wide enough in a window, as rectangles by row.

/** The part of the root's width that is visible, from 0 to 1. */
const EVERYTHING = Object.freeze({ from: 0, to: 1 });

/**
 * Rows of `{ branch, depth, x, width }` in pixels, from left to right; the first row is the root's. Neighbours that are
 * narrower than `narrowest`, a pixel of the screen, are together one rectangle without a branch, with their number as
 * `hidden`; what is behind them is left out.
 */
function layOut(tree, visible, pixels, narrowest) {
  const rows = [];
  const root = tree.root;
  if (root.width === 0) return rows;
  const scale = pixels / (root.width * (visible.to - visible.from));
  const origin = root.start + visible.from * root.width;
  const rect = (branch, depth, start, end, hidden) => {
    const x = Math.max(0, (start - origin) * scale);
    return { branch, depth, x, width: Math.min(pixels, (end - origin) * scale) - x, hidden };
  };
  const pending = [rect(root, 0, root.start, root.start + root.width, 0)];
  while (pending.length) {
    const next = pending.pop();
    (rows[next.depth] ??= []).push(next);
    if (!next.branch) continue;
    const above = [];
    let narrow = null;
    for (const child of next.branch.children) {
      const end = child.start + child.width;
      const its = rect(child, child.depth, child.start, end, 0);
      if (its.width >= narrowest) above.push(its);
      if (its.width <= 0 || its.width >= narrowest) narrow = null;
      else if (narrow) Object.assign(narrow, rect(null, child.depth, narrow.start, end, narrow.hidden + 1));
      else above.push((narrow = { ...rect(null, child.depth, child.start, end, 1), start: child.start }));
    }
    // Last first, so that rows fill from left to right.
    for (let i = above.length - 1; i >= 0; i--) if (above[i].width >= narrowest) pending.push(above[i]);
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

/** A part of a window, from 0 to 1 of it. */
function part({ from, to }, start, end) {
  return { from: from + start * (to - from), to: from + end * (to - from) };
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
