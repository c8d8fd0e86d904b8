// What the page shows, as it stands in the address behind the `#`, so that a view can be bookmarked and gone back to.
// Whatever is not as it should be there is ignored.

const VIEWS = ["graph", "sandwich", "table", "source"];
const SIDES = ["base", "new", "difference"];
const SHAPES = ["new", "base", "vanished"];

/** Also the meaning of an empty address. */
const INITIAL = Object.freeze({
  view: "graph",
  /** Of a comparison, and whose shares give the widths of the difference. */
  side: "difference",
  shape: "new",
  icicle: false,
  reversed: false,
  heavy: false,
  search: "",
  regex: false,
  /** Position among all threads of all profiles. */
  thread: null,
  /** Chosen values by key. */
  labels: Object.freeze({}),
  /** Seconds. */
  from: null,
  to: null,
  hostCalls: false,
  /** Keys of the frame that fills the graph, from the oldest one on. */
  zoom: Object.freeze([]),
  /** Number of the function of the sandwich. */
  function: null,
  /** Position of the file of the source view in the texts. */
  file: null,
});

function stateToHash(state) {
  const words = new URLSearchParams();
  for (const [name, initial] of Object.entries(INITIAL)) {
    const value = state[name];
    if (name === "labels") {
      for (const [key, chosen] of Object.entries(value)) words.append("label", JSON.stringify([key, chosen]));
    } else if (name === "zoom") {
      if (value.length) words.set(name, value.join("."));
    } else if (value !== initial) {
      words.set(name, typeof value === "boolean" ? Number(value) : value);
    }
  }
  return words.toString();
}

function stateFromHash(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const state = { ...INITIAL, labels: {} };
  const number = (text) => (text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
  for (const name of ["thread", "function", "file", "from", "to"]) {
    const value = number(words.get(name));
    if (value !== null && value >= 0) state[name] = value;
  }
  for (const name of ["icicle", "reversed", "heavy", "regex", "hostCalls"]) state[name] = words.get(name) === "1";
  for (const [name, choices] of [["view", VIEWS], ["side", SIDES], ["shape", SHAPES]]) {
    if (choices.includes(words.get(name))) state[name] = words.get(name);
  }
  state.search = words.get("search") ?? "";
  state.zoom = (words.get("zoom") ?? "").split(".").map(number).filter((key) => key !== null);
  for (const text of words.getAll("label")) {
    try {
      const [key, value] = JSON.parse(text);
      if (typeof key === "string" && typeof value === "string") state.labels[key] = value;
    } catch {
      // Not a label.
    }
  }
  return state;
}
