// Which samples count: by thread, label, time, and whether they fell in a call of the host.

class Filters {
  /** `onChange(changes)` hears what to change in the state. */
  constructor(element, report, onChange) {
    this.report = report;
    this.onChange = onChange;
    const { dataset } = report;
    this.threads = element.querySelector("#thread");
    this.labels = element.querySelector("#labels");
    this.hostCalls = element.querySelector("#host-calls");
    this.from = element.querySelector("#from");
    this.to = element.querySelector("#to");
    this.clear = element.querySelector("#clear");

    /** Number of the first thread of each profile among all. */
    this.firstThread = [];
    const threads = [];
    for (const profile of dataset.json.profiles) {
      this.firstThread.push(threads.length);
      const side = dataset.isComparison ? (profile.is_new ? "new: " : "base: ") : "";
      threads.push(...profile.threads.map((name) => side + name));
    }
    this.threads.append(...threads.map((name, number) => option(name, number)));
    this.threads.closest("label").hidden = threads.length === 0;
    this.threads.addEventListener("change", () => {
      onChange({ thread: this.threads.value === "" ? null : Number(this.threads.value) });
    });
    this.hostCalls.addEventListener("change", () => onChange({ hostCalls: this.hostCalls.checked }));
    this.clear.addEventListener("click", () => {
      onChange({ thread: null, labels: {}, from: null, to: null, hostCalls: false });
    });
    this.makeLabels();
    this.timeline = new Timeline(element.querySelector("#timeline"), report, (from, to) => onChange({ from, to }));
    element.querySelector("#time").hidden = !this.timeline.isKnown;
    for (const input of [this.from, this.to]) {
      input.step = this.timeline.step;
      input.addEventListener("change", () => this.setRange());
    }
  }

  /** A choice for each key: its values in order, as they occur. */
  makeLabels() {
    const values = new Map();
    for (const set of this.report.dataset.json.label_sets) {
      for (const [key, value] of set) values.set(key, (values.get(key) ?? new Set()).add(value));
    }
    this.choices = new Map();
    for (const [key, known] of [...values].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const label = element("label", `${key} `);
      const select = document.createElement("select");
      select.dataset.key = key;
      select.append(option("any", ""), ...[...known].sort().map((value) => option(value, `=${value}`)));
      select.addEventListener("change", () => {
        const labels = Object.fromEntries(
          [...this.choices].filter(([, { value }]) => value !== "").map(([key, { value }]) => [key, value.slice(1)]),
        );
        this.onChange({ labels });
      });
      label.append(select);
      this.labels.append(label);
      this.choices.set(key, select);
    }
  }

  setRange() {
    const number = (input, otherwise) => (input.value === "" ? otherwise : Number(input.value));
    const from = Math.max(0, number(this.from, 0));
    const to = Math.min(this.timeline.end, number(this.to, this.timeline.end));
    const isAll = from <= 0 && to >= this.timeline.end;
    this.onChange(isAll || to <= from ? { from: null, to: null } : { from, to });
  }

  /** Shows the state in the controls. */
  show(state) {
    this.threads.value = state.thread ?? "";
    this.hostCalls.checked = state.hostCalls;
    for (const [key, select] of this.choices) select.value = key in state.labels ? `=${state.labels[key]}` : "";
    this.from.value = state.from ?? "";
    this.to.value = state.to ?? "";
    this.clear.disabled = !isFiltered(state);
    this.timeline.show(this.mask({ ...state, from: null, to: null }), state.from, state.to);
  }

  /** For each sample, whether it counts. */
  mask(state) {
    const { dataset } = this.report;
    const wanted = Object.entries(state.labels);
    const labels = dataset.json.label_sets.map((set) =>
      wanted.every(([key, value]) => set.some(([known, its]) => known === key && its === value)),
    );
    // Slices of time by profile: the first and the one behind the last.
    const tolerance = 1e-6;
    const slices = this.timeline.seconds.map((seconds) => [
      seconds > 0 ? Math.ceil((state.from ?? 0) / seconds - tolerance) : Infinity,
      seconds > 0 ? Math.ceil((state.to ?? this.timeline.end) / seconds - tolerance) : 0,
    ]);
    const isRange = state.from !== null || state.to !== null;
    const mask = new Uint8Array(dataset.samplePath.length);
    if (!isFiltered(state)) return mask.fill(1);
    for (let sample = 0; sample < mask.length; sample++) {
      const profile = dataset.sampleProfile[sample];
      const thread = dataset.sampleThread[sample];
      if (state.thread !== null && (thread === NONE || this.firstThread[profile] + thread !== state.thread)) continue;
      if (!labels[dataset.sampleLabels[sample]]) continue;
      const slice = dataset.sampleSlice[sample];
      if (isRange && (slice === NONE || slice < slices[profile][0] || slice >= slices[profile][1])) continue;
      if (state.hostCalls && !dataset.inHostCall[dataset.pathCall[dataset.samplePath[sample]]]) continue;
      mask[sample] = 1;
    }
    return mask;
  }
}

function isFiltered(state) {
  const { thread, from, to, hostCalls, labels } = state;
  return thread !== null || from !== null || to !== null || hostCalls || Object.keys(labels).length > 0;
}

function option(text, value) {
  const made = element("option", text);
  made.value = value;
  return made;
}
