// The table of functions: self and total, sorted by any column; in a comparison, both sides and the change.

class Table {
  /** `onOpen(function)` hears which one is to be looked at. */
  constructor(element, report, onOpen) {
    this.report = report;
    this.sorting = null;
    this.head = element.querySelector(".head");
    this.rows = new Rows(element.querySelector(".list"), {
      label: "Functions. Arrow keys move, Enter shows callers and callees.",
      fill: (index, row) => this.fill(this.functions[index], row),
      onOpen: (index) => onOpen(this.functions[index]),
    });
  }

  /** Functions on any counted stack, of either side in a difference, that the search finds. */
  show(matches) {
    const { figures, dataset } = this.report;
    this.columns = this.report.isDifference ? this.differenceColumns() : this.columnsOf(this.report.shape);
    if (!(this.sorting?.column < this.columns.length)) this.sorting = { column: 0, down: true };
    const sides = this.report.isDifference ? figures.functions : [figures.functions[this.report.shape]];
    const counted = (number) => sides.some(({ total }) => total.weight[number] > 0 || total.count[number] > 0);
    const functions = [];
    for (let number = 0; number < dataset.names.length; number++) {
      if ((!matches || matches[number]) && counted(number)) functions.push(number);
    }
    this.functions = functions;
    this.showHead();
    this.sort();
  }

  columnsOf(side) {
    const { figures, amounts } = this.report;
    const { self, total } = figures.functions[side];
    const share = (weight) => percent(figures.share(side, weight));
    return [
      { label: "Self", value: (n) => self.weight[n], text: amounts.weight.bind(amounts) },
      { label: "Self %", value: (n) => self.weight[n], text: share },
      { label: "Total", value: (n) => total.weight[n], text: amounts.weight.bind(amounts) },
      { label: "Total %", value: (n) => total.weight[n], text: share },
      { label: "Samples", value: (n) => total.count[n], text: count },
    ];
  }

  differenceColumns() {
    const { report } = this;
    const cost = (side, kind) => (n) => report.cost(side, report.figures.functions[side][kind].weight[n]);
    const change = (kind) => (n) => cost(1, kind)(n) - cost(0, kind)(n);
    const marked = (kind) => (value, n) => report.changeText(value) + (report.isSignificant(n, kind) ? "*" : "");
    const text = (cost) => report.costText(cost).replace(" per unit of work", "");
    const byKind = (kind, label) => [
      {
        label: `${label} change`,
        value: change(kind),
        text: marked(kind),
        rank: (n) => this.rank(n, kind, change),
        hint: (n) => report.missed(n).filter(({ of }) => of === kind).map(({ text }) => text)[0],
      },
      { label: `${label}, base`, value: cost(0, kind), text },
      { label: `${label}, new`, value: cost(1, kind), text },
    ];
    return [...byKind("self", "Self"), ...byKind("total", "Total")];
  }

  /** Changes beyond noise first, each by size. */
  rank(number, kind, change) {
    const isSignificant = this.report.isSignificant(number, kind);
    // No change is larger than all that there is.
    const most = Math.max(...[0, 1].map((side) => this.report.cost(side, this.report.figures.whole[side].weight)));
    return Math.abs(change(kind)(number)) + (isSignificant ? most : 0);
  }

  showHead() {
    const cells = this.columns.map(({ label }, index) => {
      const isSorted = index === this.sorting.column;
      const head = button(label + (isSorted ? (this.sorting.down ? " ▾" : " ▴") : ""), () => this.sortBy(index));
      const shell = cell("number", "", "columnheader");
      shell.setAttribute("aria-sort", isSorted ? (this.sorting.down ? "descending" : "ascending") : "none");
      shell.append(head);
      return shell;
    });
    const name = cell("name", `Function (${count(this.functions.length)})`, "columnheader");
    this.head.replaceChildren(...cells, name);
  }

  sortBy(column) {
    this.sorting = { column, down: this.sorting.column === column ? !this.sorting.down : true };
    this.showHead();
    this.sort();
    this.head.querySelectorAll("button")[column].focus();
  }

  sort() {
    const { value, rank = value } = this.columns[this.sorting.column] ?? this.columns[0];
    const { total } = this.report.figures.functions[this.report.shape];
    const ranks = new Map(this.functions.map((number) => [number, rank(number)]));
    const down = this.sorting.down ? 1 : -1;
    // Among equals, the larger total and then the name decides; numbers are in the order of names.
    this.functions.sort(
      (a, b) => down * (ranks.get(b) - ranks.get(a)) || total.weight[b] - total.weight[a] || a - b,
    );
    this.rows.show(this.functions.length);
  }

  fill(number, row) {
    for (const { value, text, hint } of this.columns) {
      const shown = cell("number", text(value(number), number));
      shown.title = hint?.(number) ?? "";
      row.append(shown);
    }
    const name = cell("name", this.report.dataset.names[number]);
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = this.report.colorOfFunction(number);
    name.prepend(swatch);
    row.append(name);
  }
}
