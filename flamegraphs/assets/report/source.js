// Source lines with their self and total shares. Where a file's text is not in the report, only the lines that were
// sampled are listed.

class SourceView {
  constructor(element, report, onFile) {
    this.report = report;
    this.files = element.querySelector("select");
    this.hint = element.querySelector(".hint");
    this.rows = new Rows(element.querySelector(".list"), {
      label: "Source lines",
      fill: (index, row) => this.fill(this.lines[index], row),
    });
    this.files.addEventListener("change", () => onFile(Number(this.files.value)));
  }

  /** `file` is a position in the texts; without one, the file with the largest self weight is shown. */
  show(file, line) {
    const { dataset, figures, shape } = this.report;
    const byFile = figures.lines[shape];
    const self = ([, lines]) => [...lines.values()].reduce((sum, line) => sum + line.self, 0);
    const sorted = [...byFile].map((entry) => [entry[0], self(entry)]).sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    this.files.replaceChildren(
      ...sorted.map(([position, weight]) => {
        const share = percent(figures.share(shape, weight));
        const option = element("option", `${share}  ${dataset.json.texts[position]}`);
        option.value = position;
        return option;
      }),
    );
    const shown = byFile.has(file) ? file : sorted[0]?.[0];
    this.files.disabled = sorted.length === 0;
    if (shown === undefined) {
      this.say("The profile has no source lines: the guest was built without debug information, or has been stripped.");
      this.showLines([]);
      return;
    }
    this.files.value = shown;
    const text = dataset.json.sources[shown];
    const sampled = byFile.get(shown);
    const none = { self: 0, total: 0 };
    if (text) {
      const past = [...sampled.values()].filter(({ number }) => number > text.length).sort((a, b) => a.number - b.number);
      this.say(past.length ? "Some sampled lines are past the end: the text may be of another version." : "");
      this.showLines([
        ...text.map((text, index) => ({ ...(sampled.get(index + 1) ?? none), number: index + 1, text })),
        ...past.map((line) => ({ ...line, text: "" })),
      ]);
    } else {
      this.say("The text of this file is not in the report: only lines that were sampled are listed.");
      this.showLines([...sampled.values()].map((line) => ({ ...line, text: "" })).sort((a, b) => a.number - b.number));
    }
    const wanted = this.lines.findIndex(({ number }) => number === line);
    const hottest = this.lines.reduce((best, { self }, index) => (self > this.lines[best].self ? index : best), 0);
    if (this.lines.length) this.rows.scrollTo(wanted >= 0 ? wanted : hottest);
  }

  say(text) {
    this.hint.textContent = text;
  }

  showLines(lines) {
    this.lines = lines;
    this.rows.show(lines.length);
  }

  fill({ number, text, self, total }, row) {
    const { figures, shape } = this.report;
    const share = (weight) => (weight > 0 ? percent(figures.share(shape, weight)) : "");
    row.append(cell("number", share(self)), cell("number", share(total)), cell("number line", String(number)));
    row.append(cell("code", text));
    // A bar behind the line, as wide as its share.
    row.style.setProperty("--share", figures.share(shape, self));
  }
}
