// The page: keeps the state, computes what follows from it, and tells the views.
//
// A change of the filters leads to new figures, any other change at most to new trees. The state is in the address.

class Report {
  constructor(dataset) {
    this.dataset = dataset;
    this.amounts = new Amounts(dataset.json);
    this.colors = new Colors(dataset);
    this.state = this.checked(stateFromHash(location.hash));
    this.tooltip = new Tooltip(document.querySelector("#tooltip"));
    const isUsed = new Uint8Array(2 * dataset.names.length);
    for (const key of dataset.callKey) isUsed[key] = 1;
    const used = [...isUsed.keys()].filter((key) => isUsed[key]).map((key) => dataset.categoryOf(key));
    this.usedCategories = [...new Set(used)].sort();
    const onSandwich = (number) => this.change({ view: "sandwich", function: number });
    this.details = new Details(document.querySelector("#details"), this, {
      onSandwich,
      onSource: (file, line) => this.openSource(file, line),
      onPath: (functions) => this.openPath(functions),
    });
    const onSelect = (branch) => this.select(branch);
    this.graph = new Graph(document.querySelector("#graph"), this, {
      label: "Flame graph",
      onSelect,
      onZoom: (branch) => this.change({ zoom: branch.path }, { isDrawn: true }),
    });
    this.sandwich = new Sandwich(document.querySelector("#sandwich"), this, onSelect);
    this.table = new Table(document.querySelector("#table"), this, onSandwich);
    this.source = new SourceView(document.querySelector("#source"), this, (file) => this.change({ file }));
    this.filters = new Filters(document.querySelector("#filters"), this, (changes) => this.change(changes));
    showHeader(this);
    this.controls = new Controls(this);
    this.applyTheme();
    this.update({ isFiltered: true });
  }

  /** Without what the profile does not have. */
  checked(state) {
    const { names, json } = this.dataset;
    const threads = json.profiles.reduce((sum, profile) => sum + profile.threads.length, 0);
    if (!(state.function < names.length && Number.isInteger(state.function))) state.function = null;
    if (!(state.thread < threads && Number.isInteger(state.thread))) state.thread = null;
    const has = ([key, value]) => json.label_sets.some((set) => set.some(([k, v]) => k === key && v === value));
    state.labels = Object.fromEntries(Object.entries(state.labels).filter(has));
    if (state.from !== null && state.to !== null && state.to <= state.from) [state.from, state.to] = [null, null];
    return state;
  }

  get isDifference() {
    return this.dataset.isComparison && this.state.side === "difference";
  }

  /** The side that gives widths and figures. */
  get shape() {
    if (!this.dataset.isComparison) return 0;
    return { base: 0, new: 1, vanished: VANISHED }[this.isDifference ? this.state.shape : this.state.side];
  }

  /** Applies changes to the state; `isDrawn` if the graph already shows them. */
  change(changes, { isDrawn = false } = {}) {
    const before = this.state;
    this.state = { ...before, ...changes };
    // Another tree has other frames.
    if (this.state.reversed !== before.reversed) this.state.zoom = [];
    const filters = ["thread", "labels", "from", "to", "hostCalls"];
    history.replaceState(null, "", `#${stateToHash(this.state)}`);
    this.update({ isFiltered: filters.some((name) => this.state[name] !== before[name]), isDrawn });
  }

  /** When someone edits the address. */
  readAddress() {
    this.state = this.checked(stateFromHash(location.hash));
    this.update({ isFiltered: true });
  }

  update({ isFiltered, isDrawn = false }) {
    const { state, dataset } = this;
    if (isFiltered) {
      this.figures = new Figures(dataset, this.filters.mask(state));
      this.filters.show(state);
    }
    const { matches, error } = search(dataset.names, state.search, state.regex);
    this.matches = matches;
    this.controls.show(error);
    if (isDrawn) return;
    showLegend(this);
    for (const view of VIEWS) document.querySelector(`#${view}`).hidden = state.view !== view;
    this.details.element.hidden = state.view === "table" || state.view === "source";
    this.order = state.heavy ? LEFT_HEAVY : BY_NAME;
    if (state.view === "graph") this.showGraph();
    if (state.view === "sandwich") this.showSandwich();
    if (state.view === "table") this.table.show(matches);
    if (state.view === "source") this.showSource();
  }

  showGraph() {
    const { dataset, figures, order, shape, state } = this;
    // What is searched for does not change the tree.
    const inputs = [figures, order, shape, state.reversed];
    if (!this.tree || inputs.some((input, i) => input !== this.treeInputs[i])) {
      const make = state.reversed ? CallTree.ofCallers : CallTree.ofCallees;
      [this.tree, this.treeInputs] = [make(dataset, figures, order, shape), inputs];
    }
    this.graph.show(this.tree, { growsUp: !state.icicle, zoom: state.zoom, matches: this.matches });
    const { selected } = this.graph;
    this.details.show(selected);
    document.querySelector("#chosen").textContent = selected ? this.describe(selected) : "";
  }

  showSandwich() {
    const number = this.state.function ?? hottestFunction(this.figures, this.shape);
    if (this.dataset.names.length) this.sandwich.show(number, this.order, this.matches);
    this.details.show(null);
  }

  showSource() {
    this.source.show(this.state.file, this.line);
    this.line = undefined;
  }

  openSource(file, line) {
    this.line = line;
    this.change({ view: "source", file });
  }

  /** Zooms to a call path. One that is in the base only has its width there. */
  openPath(functions) {
    const find = () => this.graph.tree.findFunctions(functions);
    if (this.state.reversed) this.change({ reversed: false });
    if (!find()) this.change({ shape: this.state.shape === "base" ? "new" : "base" });
    const branch = find();
    if (!branch) return;
    this.graph.select(branch);
    this.graph.zoom(branch);
    this.graph.canvas.focus();
  }

  select(branch) {
    this.details.show(branch);
    document.querySelector("#chosen").textContent = this.describe(branch);
  }

  /** The chosen frame of the view, if it stands for a function. */
  get chosen() {
    const { graph, sandwich } = this;
    const branch =
      this.state.view === "sandwich" ? (sandwich.callees.selected ?? sandwich.callers.selected) : graph.selected;
    return branch && branch.key !== NONE ? branch : null;
  }

  name(branch) {
    return branch.key === NONE ? "all" : this.dataset.nameOf(branch.key);
  }

  color(branch) {
    if (!this.isDifference || branch.key === NONE) return this.colors.ofKey(branch.key);
    return this.colors.ofFunction(branch.key >> 1, this.dataset.json.changes.hues[this.hue(branch)]);
  }

  /** The colour of a function over all its frames. */
  colorOfFunction(number) {
    const { changes } = this.dataset.json;
    const hue = this.isDifference && (changes.functions[number]?.hue ?? changes.hues.length - 1);
    return hue === false ? this.colors.ofKey(2 * number) : this.colors.ofHue(hue);
  }

  /** Position in the hues: of the call, or of the function where a frame stands for calls of many callers. */
  hue(branch) {
    if (branch.members.length === 1 && !branch.tree.towardsCallers) return this.dataset.callHue[branch.members[0]];
    return this.dataset.json.changes.functions[branch.key >> 1]?.hue ?? this.dataset.json.changes.hues.length - 1;
  }

  /** What a frame has before its name: in a difference, whether it costs more or less than before, beyond noise. */
  mark(branch) {
    if (!this.isDifference || branch.key === NONE) return "";
    return HUE_MARKS[this.hue(branch)];
  }

  /** What a weight of a side costs: per unit of work if that is known, otherwise as a share. */
  cost(side, weight) {
    const { work } = this.dataset.json.changes;
    return work ? weight / work[side] : this.figures.share(side, weight);
  }

  costText(cost) {
    return this.dataset.json.changes.work ? `${this.amounts.weight(cost)} per unit of work` : percent(cost);
  }

  changeText(change) {
    if (!this.dataset.json.changes.work) return points(change);
    return `${change < 0 ? "−" : "+"}${this.amounts.weight(Math.abs(change))}`;
  }

  isSignificant(number, kind) {
    const change = this.dataset.json.changes.functions[number];
    return Boolean(change?.[`${kind}_is_significant`]);
  }

  describe(branch) {
    const facts = this.facts(branch).map(([label, value]) => `${label} ${value}`);
    return `${this.name(branch)}: ${facts.join(", ")}`;
  }

  /** The figures of a frame: label and value. */
  facts(branch) {
    const { figures, amounts, shape } = this;
    const { weight, count: number } = branch.tallies[shape];
    const facts = [[amounts.isTime ? "weight" : amounts.event, amounts.weight(weight)]];
    facts.push(["share", percent(figures.share(shape, weight))]);
    if (branch.parent && !branch.tree.towardsCallers) {
      facts.push(["of caller", percent(branch.width / branch.parent.width)]);
    }
    if (!branch.tree.towardsCallers && branch.key !== NONE) {
      const self = branch.members.reduce((sum, call) => sum + figures.self[shape].weight[call], 0);
      facts.push(["self", `${amounts.weight(self)} (${percent(figures.share(shape, self))})`]);
    }
    facts.push(["samples", count(number)]);
    if (this.isDifference) {
      const [base, now] = [0, 1].map((side) => this.cost(side, branch.tallies[side].weight));
      facts.push(["base", this.costText(base)], ["new", this.costText(now)], ["change", this.changeText(now - base)]);
      if (branch.key !== NONE) {
        const { hues } = this.dataset.json.changes;
        const hue = this.hue(branch);
        facts.push(["meaning", hues[hue].label]);
        if (hue === hues.length - 1) facts.push(...this.missed(branch.key >> 1).map(({ text }) => ["but", text]));
      }
    }
    return facts;
  }

  /** Of self and total, if no change of a function was found: how small one may be that is there all the same. */
  missed(number) {
    const sizes = this.dataset.json.changes.functions[number]?.missed ?? [];
    const text = (size, of) => `a change of the function's ${of} by less than ${size} may be missed`;
    return ["self", "total"].flatMap((of, i) => (sizes[i] ? [{ of, text: text(sizes[i], of) }] : []));
  }

  /** The figures of a function over all its frames. */
  functionFacts(number) {
    const { figures, amounts, shape } = this;
    const { self, total } = figures.functions[shape];
    const both = (weight) => `${amounts.weight(weight)} (${percent(figures.share(shape, weight))})`;
    const facts = [
      ["self", both(self.weight[number])],
      ["total", both(total.weight[number])],
      ["samples", `${count(self.count[number])} self, ${count(total.count[number])} total`],
    ];
    const change = this.dataset.json.changes?.functions[number];
    if (change) facts.push(...change.facts);
    return facts;
  }

  applyTheme() {
    const chosen = document.documentElement.dataset.theme;
    const isDark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    this.colors.setTheme(isDark);
  }

  /** From light to dark or back, whatever the system prefers. */
  switchTheme() {
    document.documentElement.dataset.theme = this.colors.isDark ? "light" : "dark";
    this.applyTheme();
    this.update({ isFiltered: false });
    this.filters.timeline.paint();
  }
}

async function start() {
  const data = document.querySelector("#data");
  try {
    const dataset = await readDataset(data.textContent);
    data.remove();
    const report = new Report(dataset);
    addEventListener("hashchange", () => report.readAddress());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      report.applyTheme();
      report.update({ isFiltered: true });
    });
    document.querySelector("main").setAttribute("aria-busy", "false");
    // When the second frame starts, the first is on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("first paint of the graph")));
  } catch (error) {
    document.querySelector("#failure").textContent = `This report cannot be shown: ${error.message}`;
    throw error;
  }
}

start();
