// What is known about the chosen frame: figures, source lines with their shares, bytecode offsets.

/** Longer lists are cut, and say so. */
const LONGEST_LIST = 8;

class Details {
  /** `onSandwich(function)`, `onSource(file, line)` and `onPath(functions)` hear what the user wants to see. */
  constructor(element, report, { onSandwich, onSource, onPath }) {
    this.element = element;
    this.report = report;
    this.onSandwich = onSandwich;
    this.onSource = onSource;
    this.onPath = onPath;
  }

  show(branch) {
    if (!branch) {
      const hints = [...this.explanation(), "Choose a frame to see its figures, lines and offsets."];
      this.element.replaceChildren(...hints.map((hint) => paragraph("hint", hint)), ...this.paths());
      return;
    }
    const { report } = this;
    const parts = [heading(report.name(branch))];
    if (branch.key !== NONE) parts.push(this.kind(branch));
    const facts = document.createElement("dl");
    for (const [label, value] of report.facts(branch)) facts.append(element("dt", label), element("dd", value));
    parts.push(facts);
    if (branch.key !== NONE) {
      parts.push(button("Callers and callees", () => this.onSandwich(branch.key >> 1)));
      parts.push(...this.places(branch));
    }
    this.element.replaceChildren(...parts);
    this.element.scrollTop = 0;
  }

  /** What one sees, for somebody who has not seen such a graph before. */
  explanation() {
    const { report } = this;
    const { view, icicle, reversed, heavy } = report.state;
    const measure = report.amounts.isTime ? "time" : report.amounts.event;
    if (view === "sandwich") {
      return [`Above is what calls the function, below is what it calls. Widths are shares of the function's ${measure}.`];
    }
    const [caller, callee] = icicle === reversed ? ["below", "above"] : ["above", "below"];
    const order = heavy ? "Neighbours are in the order of their widths" : "Neighbours are in the order of their names";
    const width = `Each frame is a function, as wide as the ${measure} that was spent in it and in what it calls.`;
    const colors = report.isDifference
      ? "Colours and marks say what changed beyond noise, and are explained at the bottom."
      : "Colours say what kind of code it is.";
    const end = reversed
      ? `The first row has the functions in which ${measure} was spent; ${caller} each is what called it.`
      : `${caller === "below" ? "Below" : "Above"} it is its caller, ${callee} it what it calls.`;
    return [reversed ? `${end} Widths are ${measure}.` : `${width} ${end}`, `${order}, not of time. ${colors}`];
  }

  /** In a difference, the call paths that explain it. */
  paths() {
    if (!this.report.isDifference) return [];
    const { dataset } = this.report;
    const list = document.createElement("ol");
    for (const { functions, change } of dataset.json.changes.paths) {
      const item = document.createElement("li");
      const amount = element("span", this.report.changeText(change));
      amount.className = "number";
      const names = functions.map((number) => dataset.names[number]).join(" → ");
      item.append(amount, button(names, () => this.onPath(functions), "link"));
      list.append(item);
    }
    return list.children.length ? [heading("Call paths that changed", "h3"), list] : [];
  }

  kind(branch) {
    const category = this.report.dataset.categoryOf(branch.key);
    const line = paragraph("kind", this.report.dataset.json.categories[category].label);
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = this.report.colors.ofCategory(category);
    line.prepend(swatch);
    return line;
  }

  places(branch) {
    const { dataset, figures } = this.report;
    const side = this.report.shape;
    const places = branch.tree.places(branch, figures)[side];
    const { placeFile, placeLine, placeModule, placeBytecode } = dataset;
    const text = (position) => dataset.json.texts[position];
    const [lines, offsets, modules] = [new Map(), new Map(), new Set()];
    for (const [place, tally] of places) {
      if (placeModule[place] !== NONE) modules.add(text(placeModule[place]));
      if (placeFile[place] !== NONE && placeLine[place] > 0) {
        add(lines, `${text(placeFile[place])}:${placeLine[place]}`, tally, [placeFile[place], placeLine[place]]);
      }
      if (placeBytecode[place] !== NONE) add(offsets, `0x${placeBytecode[place].toString(16)}`, tally);
    }
    const parts = [];
    if (modules.size) parts.push(paragraph("module", `in ${[...modules].sort().join(", ")}`));
    const open = ([file, line]) => this.onSource(file, line);
    if (lines.size) parts.push(heading("Source lines", "h3"), this.list(lines, branch, open));
    if (offsets.size) parts.push(heading("Bytecode offsets", "h3"), this.list(offsets, branch, null));
    return parts;
  }

  /** The heaviest of a map from label to tally, with their shares of the frame. */
  list(map, branch, open) {
    const list = document.createElement("ol");
    const sorted = [...map].sort(([a, x], [b, y]) => y.weight - x.weight || (a < b ? -1 : 1));
    for (const [label, { weight, target }] of sorted.slice(0, LONGEST_LIST)) {
      const item = document.createElement("li");
      const share = element("span", percent(branch.width > 0 ? weight / branch.width : 0));
      share.className = "number";
      item.append(share, open ? button(label, () => open(target), "link") : element("code", label));
      list.append(item);
    }
    if (sorted.length > LONGEST_LIST) list.append(element("li", `and ${count(sorted.length - LONGEST_LIST)} more`));
    return list;
  }
}

function add(map, label, tally, target) {
  const sum = map.get(label) ?? { weight: 0, target };
  sum.weight += tally.weight;
  map.set(label, sum);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function heading(text, level = "h2") {
  return element(level, text);
}

function paragraph(className, text) {
  const made = element("p", text);
  made.className = className;
  return made;
}

function button(text, onClick, className = "") {
  const made = element("button", text);
  made.type = "button";
  made.className = className;
  made.addEventListener("click", onClick);
  return made;
}
