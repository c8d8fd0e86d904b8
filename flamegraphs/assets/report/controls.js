// The tool bar and the keys: what they show of the state, and what they change in it.

class Controls {
  constructor(report) {
    this.report = report;
    const get = (selector) => document.querySelector(selector);
    this.search = get("#search");
    this.found = get("#found");
    this.counted = get("#counted");
    this.views = [...document.querySelectorAll("[data-view]")];
    this.sides = [...document.querySelectorAll("[data-side]")];
    this.shape = get("#shape");
    this.switches = [...document.querySelectorAll("[data-switch]")];
    this.help = get("#help");
    fillHelp(this.help);
    get("#side").hidden = !report.dataset.isComparison;

    for (const button of this.views) {
      button.addEventListener("click", () => report.change({ view: button.dataset.view }));
    }
    for (const button of this.sides) {
      button.addEventListener("click", () => report.change({ side: button.dataset.side }));
    }
    for (const button of this.switches) {
      button.addEventListener("click", () => this.toggle(button.dataset.switch));
    }
    this.shape.addEventListener("change", () => report.change({ shape: this.shape.value }));
    this.search.addEventListener("input", () => report.change({ search: this.search.value }));
    this.search.addEventListener("keydown", (event) => this.onSearchKey(event));
    get("#theme").addEventListener("click", () => report.switchTheme());
    get("#open-help").addEventListener("click", () => this.help.showModal());
    addEventListener("keydown", (event) => this.onKey(event));
  }

  toggle(name) {
    this.report.change({ [name]: !this.report.state[name] });
  }

  /** Shows the state; `error` is what is wrong with the search. */
  show(error) {
    const { state, figures, shape, matches } = this.report;
    for (const button of this.views) button.setAttribute("aria-pressed", button.dataset.view === state.view);
    for (const button of this.sides) button.setAttribute("aria-pressed", button.dataset.side === state.side);
    for (const button of this.switches) {
      button.setAttribute("aria-pressed", state[button.dataset.switch]);
    }
    this.shape.value = state.shape;
    this.shape.closest("label").hidden = !this.report.isDifference;
    if (this.search.value !== state.search) this.search.value = state.search;
    this.search.setAttribute("aria-invalid", error !== null);
    this.found.textContent = error ?? (matches ? `${percent(figures.matchedShare(shape, matches))} matched` : "");
    const build = this.report.isDifference ? ["base: ", "new: ", "base: "][shape] : "";
    this.counted.textContent = build + this.amount(figures.whole[shape], isFiltered(state), shape);
  }

  /** What counts, and which part of all that is. */
  amount({ weight, count: number }, isPart, side) {
    const { amounts } = this.report;
    if (number + weight === 0) return `No samples${isPart ? " pass the filters" : ""}`;
    const isSaid = number > 0 && amounts.named(weight) !== samples(number);
    const part = isPart ? ` (${percent(weight / this.wholeWeight(side))} of all)` : "";
    return amounts.named(weight) + (isSaid ? ` in ${samples(number)}` : "") + part;
  }

  /** Of a side, whatever the filters. */
  wholeWeight(side) {
    const { dataset } = this.report;
    const wanted = side === VANISHED ? 0 : side;
    let sum = 0;
    dataset.sampleWeight.forEach((weight, sample) => {
      if (dataset.sideOf(dataset.sampleProfile[sample]) === wanted) sum += weight;
    });
    return sum;
  }

  /** Only the graph goes from one frame that was found to the next. */
  next(direction) {
    if (this.report.state.view === "graph") this.report.graph.next(direction);
  }

  onSearchKey(event) {
    if (event.key === "Escape") {
      this.report.change({ search: "" });
      this.search.blur();
    } else if (event.key === "Enter") {
      this.next(event.shiftKey ? -1 : 1);
    } else return;
    event.preventDefault();
  }

  onKey(event) {
    const { report } = this;
    const isTyping = event.target.closest?.("input, select, textarea, dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      "/": () => this.search.focus(),
      n: () => this.next(1),
      N: () => this.next(-1),
      i: () => this.toggle("icicle"),
      r: () => this.toggle("reversed"),
      l: () => this.toggle("heavy"),
      s: () => report.chosen && report.change({ view: "sandwich", function: report.chosen.key >> 1 }),
      c: () => this.report.filters.clear.click(),
      t: () => report.switchTheme(),
      "?": () => this.help.showModal(),
      1: () => report.change({ view: "graph" }),
      2: () => report.change({ view: "sandwich" }),
      3: () => report.change({ view: "table" }),
      4: () => report.change({ view: "source" }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
