// What is known about the run: title, facts, notices, what became of the ticks; and the help.

/** Keys that work wherever no text is typed, and what they do; the help lists them. */
const KEYS = [
  ["1 2 3 4", "graph, sandwich, table, source lines"],
  ["/", "search"],
  ["n  N", "next and previous frame that the search finds"],
  ["i", "turn the graph upside down: flames or icicles"],
  ["r", "start from the youngest frames (reversed), or from the oldest"],
  ["l", "heaviest frames to the left, or in the order of names"],
  ["s", "callers and callees of the chosen frame"],
  ["c", "clear all filters"],
  ["t", "light or dark"],
  ["?", "this help"],
];

const IN_THE_GRAPH = [
  ["click  Enter", "let a frame, or frames too narrow to be drawn, fill the width"],
  ["Esc", "show everything again"],
  ["Backspace", "zoom out to the caller"],
  ["+  −", "zoom; so does the wheel with Ctrl, around the pointer"],
  ["arrow keys", "choose the caller, the heaviest callee, or a neighbour"],
  ["Shift and wheel", "move sideways"],
];

function showHeader(report) {
  const { dataset, amounts } = report;
  const { json } = dataset;
  document.title = json.title;
  const header = document.querySelector("header");
  header.querySelector("h1").textContent = json.title;
  const profiles = json.profiles.map((profile, number) => ({ ...profile, name: profileName(json, number) }));
  header.querySelector("#facts").replaceChildren(
    ...profiles.map((profile) => {
      const facts = profile.start === null ? profile.facts : [...profile.facts, ["start", moment(profile.start)]];
      return list(profile.name, facts.filter(([, value]) => value !== json.title));
    }),
  );
  const notices = profiles.flatMap((profile) => profile.notices.map((notice) => profile.name + notice));
  notices.push(...(json.changes?.notices ?? []));
  const bullets = notices.map((notice) => element("li", notice));
  header.querySelector("#notices").replaceChildren(...bullets);
  const statistics = document.querySelector("#statistics");
  statistics.querySelector("div").replaceChildren(
    ...profiles.map(({ name, ticks }) => {
      const value = ([label, samples, weight]) => [label, `${count(samples)} · ${amounts.weight(weight)}`];
      return list(name, ticks.map(value));
    }),
  );
  statistics.hidden = profiles.every(({ ticks }) => ticks.length === 0);
  const lost = profiles.flatMap(({ ticks }) => ticks.filter(([label]) => label.startsWith("lost: ")));
  const sum = lost.reduce((sum, [, samples]) => sum + samples, 0);
  statistics.querySelector("summary").textContent = sum > 0 ? `Ticks (${count(sum)} lost)` : "Ticks (none lost)";
}

/** Which build a profile is of, if there are two. */
function profileName(json, number) {
  if (json.changes === null) return "";
  const { is_new: isNew } = json.profiles[number];
  const same = json.profiles.filter((profile) => profile.is_new === isNew);
  const side = isNew ? "new" : "base";
  return same.length > 1 ? `${side} ${same.indexOf(json.profiles[number]) + 1}: ` : `${side}: `;
}

function list(name, pairs) {
  const made = document.createElement("dl");
  made.append(...(name ? [[name, ""], ...pairs] : pairs).map(described));
  return made;
}

/** A label and a value that stay on one line. */
function described([label, value]) {
  const pair = document.createElement("div");
  pair.append(element("dt", label), element("dd", value));
  return pair;
}

function moment(milliseconds) {
  return new Date(milliseconds).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

function showLegend(report) {
  const { json } = report.dataset;
  const entries = report.isDifference
    ? json.changes.hues.map(({ label }, hue) => [HUE_MARKS[hue] + label, report.colors.ofHue(hue)])
    : report.usedCategories.map((category) => [
        json.categories[category].label, report.colors.ofCategory(category),
      ]);
  if (report.isDifference && isFiltered(report.state)) entries.push(["marks are of all samples", "none"]);
  document.querySelector("#legend").replaceChildren(
    ...entries.map(([label, color]) => {
      const entry = element("span", label);
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = color;
      entry.prepend(swatch);
      return entry;
    }),
  );
}

function fillHelp(dialog) {
  const [anywhere, graph] = dialog.querySelectorAll("dl");
  for (const [target, keys] of [[anywhere, KEYS], [graph, IN_THE_GRAPH]]) {
    for (const [key, meaning] of keys) target.append(element("dt", key), element("dd", meaning));
  }
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
}

/** A line of text beside the pointer. */
class Tooltip {
  constructor(element) {
    this.element = element;
  }

  show(text, event) {
    this.element.hidden = !text;
    if (!text) return;
    this.element.textContent = text;
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const left = Math.min(event.clientX + 12, window.innerWidth - width - 8);
    const below = event.clientY + 18;
    const top = below + height > window.innerHeight ? event.clientY - height - 8 : below;
    this.element.style.left = `${Math.max(4, left)}px`;
    this.element.style.top = `${Math.max(4, top)}px`;
  }
}
