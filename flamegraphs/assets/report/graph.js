// A flame graph on a canvas: draws the branches of a tree, zooms, and lets a frame be chosen by pointer or keyboard.
//
// It shows what it is given and says what the user does; it knows nothing of filters. The canvas is as large as the
// part of the graph that is visible and stays in place while the rows scroll under it.

const ROW_HEIGHT = 18;
const TEXT_PADDING = 4;
const FONT = "12px system-ui, sans-serif";

class Graph {
  /**
   * `element` becomes the scrolled area. `report` has `describe(branch)` (a line for the pointer and for screen
   * readers), `color(branch)`, `mark(branch)` (text before the name) and `text` (the name of the root).
   * `onSelect(branch)` and `onZoom(branch or null)` hear what the user chose.
   */
  constructor(element, report, { label, onSelect, onZoom }) {
    this.element = element;
    this.report = report;
    this.onSelect = onSelect;
    this.onZoom = onZoom;
    this.visible = EVERYTHING;
    this.rows = [];
    this.selected = null;
    this.hovered = null;
    this.matches = null;
    this.growsUp = true;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys move between frames, Enter zooms, Escape zooms out.`);
    this.spacer = document.createElement("div");
    element.replaceChildren(this.canvas, this.spacer);
    element.addEventListener("scroll", () => this.paint());
    // It also reports the size that the first graph was drawn in.
    new ResizeObserver(() => this.hasSize || this.resize()).observe(element);
    this.listenToPointer();
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("focus", () => this.paint());
    this.canvas.addEventListener("blur", () => this.paint());
  }

  /**
   * Draws a tree, zoomed to the frame at a path of keys, with the functions in `matches` highlighted. The chosen frame
   * stays chosen if the tree has it.
   */
  show(tree, { growsUp, zoom, matches }) {
    const turned = this.growsUp !== growsUp || !this.tree;
    this.matches = matches;
    this.growsUp = growsUp;
    if (tree !== this.tree || zoom.join() !== this.zoomed.path.join()) {
      const chosen = this.selected?.path;
      const found = chosen && tree.find(chosen);
      this.selected = found?.depth === chosen?.length ? found : null;
      this.tree = tree;
      this.zoomed = tree.find(zoom);
      this.visible = windowOf(this.zoomed);
    }
    this.hovered = null;
    this.resize();
    if (turned) this.element.scrollTop = growsUp ? this.element.scrollHeight : 0;
  }

  get hasSize() {
    const { clientWidth, clientHeight } = this.element;
    return this.width === clientWidth && this.height === clientHeight && this.ratio === window.devicePixelRatio;
  }

  resize() {
    if (!this.tree || this.element.clientWidth === 0) return;
    this.ratio = window.devicePixelRatio;
    this.width = this.element.clientWidth;
    this.height = this.element.clientHeight;
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.layOut();
  }

  layOut() {
    this.rows = layOut(this.tree, this.visible, this.width, 1 / this.ratio);
    this.contentHeight = Math.max(this.height, this.rows.length * ROW_HEIGHT);
    this.spacer.style.height = `${this.contentHeight - this.height}px`;
    this.paint();
  }

  top(depth) {
    const y = this.growsUp ? this.contentHeight - (depth + 1) * ROW_HEIGHT : depth * ROW_HEIGHT;
    return y - this.element.scrollTop;
  }

  paint() {
    if (!this.tree) return;
    const { colors } = this.report;
    const context = this.canvas.getContext("2d", { alpha: false });
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = colors.background;
    context.fillRect(0, 0, this.width, this.height);
    context.font = FONT;
    context.textBaseline = "middle";
    this.rows.forEach((row, depth) => {
      const y = this.top(depth);
      if (y > -ROW_HEIGHT && y < this.height) for (const rect of row) this.paintRect(context, rect, y);
    });
    if (this.hovered) this.outline(context, this.hovered, colors.text, 1);
    if (this.selected) this.outline(context, this.rectOf(this.selected), colors.focus, 2);
  }

  paintRect(context, { branch, x, width }, y) {
    const { colors } = this.report;
    if (!branch) {
      context.fillStyle = colors.hidden;
      context.fillRect(x, y, width > 3 ? width - 1 : width, ROW_HEIGHT - 1);
      return;
    }
    const matched = this.matches && branch.key !== NONE && this.matches[branch.key >> 1] === 1;
    context.globalAlpha = this.matches && !matched ? 0.45 : 1;
    context.fillStyle = matched ? colors.match : this.report.color(branch);
    // A gap between neighbours, unless it would be most of them.
    context.fillRect(x, y, width > 3 ? width - 1 : width, ROW_HEIGHT - 1);
    // Names can be read whatever is searched for.
    context.globalAlpha = 1;
    const room = width - 2 * TEXT_PADDING;
    if (room > 14) {
      context.fillStyle = colors.text;
      const text = this.report.mark(branch) + this.report.name(branch);
      context.fillText(fit(context, text, room), x + TEXT_PADDING, y + ROW_HEIGHT / 2);
    }
  }

  outline(context, rect, color, thickness) {
    if (!rect) return;
    context.strokeStyle = color;
    context.lineWidth = thickness;
    const width = Math.max(2, rect.width - 1);
    context.strokeRect(rect.x + 0.5, this.top(rect.depth) + 0.5, width, ROW_HEIGHT - 2);
  }

  rectOf(branch) {
    return this.rows[branch.depth]?.find((rect) => rect.branch === branch) ?? null;
  }

  rectUnder(event) {
    const box = this.canvas.getBoundingClientRect();
    const y = event.clientY - box.top + this.element.scrollTop;
    const depth = Math.floor((this.growsUp ? this.contentHeight - y : y) / ROW_HEIGHT);
    return this.rows[depth] ? rectAt(this.rows[depth], event.clientX - box.left) : null;
  }

  listenToPointer() {
    this.canvas.addEventListener("mousemove", (event) => {
      const rect = this.rectUnder(event);
      this.report.tooltip.show(rect && this.describe(rect), event);
      this.canvas.style.cursor = rect ? "pointer" : "default";
      if (rect === this.hovered) return;
      this.hovered = rect;
      this.paint();
    });
    this.canvas.addEventListener("mouseleave", () => {
      this.report.tooltip.show(null);
      this.hovered = null;
      this.paint();
    });
    this.canvas.addEventListener("click", (event) => {
      const rect = this.rectUnder(event);
      if (!rect) return;
      if (!rect.branch) return this.look(part(this.visible, rect.x / this.width, (rect.x + rect.width) / this.width));
      this.select(rect.branch);
      this.zoom(rect.branch);
    });
    this.canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
  }

  describe({ branch, hidden }) {
    if (branch) return this.report.describe(branch);
    return hidden === 1 ? "a frame too narrow to be drawn" : `${count(hidden)} frames too narrow to be drawn`;
  }

  /** With Ctrl the wheel zooms around the pointer, sideways it moves the window; otherwise the page scrolls. */
  onWheel(event) {
    const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      const box = this.canvas.getBoundingClientRect();
      this.look(scaled(this.visible, (event.clientX - box.left) / this.width, Math.exp(event.deltaY * 0.002)));
    } else if (sideways) {
      this.look(moved(this.visible, sideways / this.width));
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Looks at a part of the width. */
  look(visible) {
    this.visible = visible;
    this.hovered = null;
    this.layOut();
  }

  /** Lets a branch fill the width. */
  zoom(branch) {
    this.zoomed = branch;
    this.look(windowOf(branch));
    this.reveal(branch);
    this.onZoom(branch);
  }

  select(branch) {
    this.selected = branch;
    this.onSelect(branch);
    this.paint();
  }

  /** Scrolls a branch and, if it is not in the window, the window to it. */
  reveal(branch) {
    const [from, to] = [windowOf(branch).from, windowOf(branch).to];
    if (from >= this.visible.to || to <= this.visible.from) this.look(windowOf(branch.parent ?? branch));
    const y = this.top(branch.depth);
    if (y < 0) this.element.scrollTop += y - ROW_HEIGHT;
    if (y + ROW_HEIGHT > this.height) this.element.scrollTop += y + 2 * ROW_HEIGHT - this.height;
    this.paint();
  }

  /** Chooses the next frame that the search finds, from left to right and from row to row. */
  next(direction) {
    if (!this.matches) return;
    const found = this.rows.flat().filter(({ branch }) => branch && branch.key !== NONE && this.matches[branch.key >> 1]);
    if (found.length === 0) return;
    const current = found.findIndex(({ branch }) => branch === this.selected);
    const index = current < 0 ? (direction > 0 ? 0 : -1) : current + direction;
    const { branch } = found.at(index % found.length);
    this.select(branch);
    this.reveal(branch);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.tree) return;
    const away = this.growsUp ? "ArrowUp" : "ArrowDown";
    const back = this.growsUp ? "ArrowDown" : "ArrowUp";
    const branch = this.selected ?? this.zoomed;
    const siblings = branch.parent?.children ?? [branch];
    const next = {
      [away]: () => branch.children.reduce((best, child) => (child.width > (best?.width ?? 0) ? child : best), null),
      [back]: () => branch.parent,
      ArrowLeft: () => siblings[siblings.indexOf(branch) - 1],
      ArrowRight: () => siblings[siblings.indexOf(branch) + 1],
      Home: () => this.tree.root,
    }[event.key];
    const act = {
      Enter: () => this.zoom(branch),
      Escape: () => this.zoom(this.tree.root),
      Backspace: () => this.zoom(this.zoomed.parent ?? this.tree.root),
      "+": () => this.look(scaled(this.visible, 0.5, 0.5)),
      "-": () => this.look(scaled(this.visible, 0.5, 2)),
    }[event.key];
    if (!next && !act) return;
    event.preventDefault();
    event.stopPropagation();
    const target = next && (this.selected ? next() : branch);
    if (target) {
      this.select(target);
      this.reveal(target);
    }
    act?.();
  }
}

/** The start of a text that fits, with an ellipsis if that is not all of it. */
function fit(context, whole, room) {
  // Measuring takes its time, and hardly a letter is narrower than two pixels.
  const text = whole.slice(0, Math.ceil(room / 2));
  const width = context.measureText(text).width;
  if (width <= room && text.length === whole.length) return text;
  let length = Math.min(text.length, Math.floor((text.length * room) / width));
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > room) length--;
  return length > 0 ? `${text.slice(0, length)}…` : "";
}
