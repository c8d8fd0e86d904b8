// A long list of rows of which only the visible ones exist. Rows can be gone through with the arrow keys.

const LIST_ROW_HEIGHT = 22;

class Rows {
  /** `fill(index, element)` puts content into a row; `onOpen(index)` hears of a click or Enter, if there is one. */
  constructor(element, { label, fill, onOpen }) {
    this.element = element;
    this.fill = fill;
    this.onOpen = onOpen;
    this.length = 0;
    this.active = 0;
    this.inner = document.createElement("div");
    this.inner.className = "rows";
    this.inner.setAttribute("role", "presentation");
    element.replaceChildren(this.inner);
    element.tabIndex = 0;
    element.setAttribute("role", "rowgroup");
    element.setAttribute("aria-label", label);
    element.addEventListener("scroll", () => this.paint());
    element.addEventListener("keydown", (event) => this.onKey(event));
    // By position: scrolling paints the rows anew, so that the one that was clicked may be gone.
    element.addEventListener("click", (event) => {
      const index = Math.floor((event.clientY - this.inner.getBoundingClientRect().top) / LIST_ROW_HEIGHT);
      if (index >= 0 && index < this.length) this.open(index);
    });
    new ResizeObserver(() => this.paint()).observe(element);
  }

  show(length) {
    this.length = length;
    this.active = Math.max(0, Math.min(this.active, length - 1));
    this.inner.style.height = `${length * LIST_ROW_HEIGHT}px`;
    this.paint();
  }

  scrollTo(index) {
    this.active = index;
    this.element.scrollTop = index * LIST_ROW_HEIGHT - this.element.clientHeight / 3;
    this.paint();
  }

  open(index) {
    this.active = index;
    this.paint();
    this.onOpen?.(index);
  }

  paint() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / LIST_ROW_HEIGHT) - 4);
    const end = Math.min(this.length, Math.ceil((scrollTop + clientHeight) / LIST_ROW_HEIGHT) + 4);
    const rows = [];
    for (let index = first; index < end; index++) {
      const row = document.createElement("div");
      row.className = "row";
      row.setAttribute("role", "row");
      row.setAttribute("aria-rowindex", index + 1);
      row.style.top = `${index * LIST_ROW_HEIGHT}px`;
      if (index === this.active) {
        row.classList.add("active");
        row.setAttribute("aria-selected", "true");
      }
      this.fill(index, row);
      rows.push(row);
    }
    this.inner.replaceChildren(...rows);
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / LIST_ROW_HEIGHT) - 1);
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.length, End: this.length };
    if (event.key === "Enter") this.open(this.active);
    else if (!(event.key in move) || event.ctrlKey || event.altKey || event.metaKey) return;
    else {
      this.active = Math.max(0, Math.min(this.length - 1, this.active + move[event.key]));
      const top = this.active * LIST_ROW_HEIGHT;
      const { scrollTop, clientHeight } = this.element;
      if (top < scrollTop) this.element.scrollTop = top;
      if (top + LIST_ROW_HEIGHT > scrollTop + clientHeight) {
        this.element.scrollTop = top + LIST_ROW_HEIGHT - clientHeight;
      }
      this.paint();
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** An element with text in a row. */
function cell(className, text, role = "cell") {
  const element = document.createElement("span");
  element.className = className;
  element.setAttribute("role", role);
  element.textContent = text;
  return element;
}
