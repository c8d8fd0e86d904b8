// What colour a frame has: by category or, in a difference, by what changed; with a shade that depends on the name.

/** How far a colour goes towards black in the dark theme: light text on it has a contrast of at least 4.5 to 1. */
const DARKENED = 0.47;

/** What stands before a name, by the hue: what a colour says, without it. */
const HUE_MARKS = ["▲ ", "△ ", "▼ ", "▽ ", ""];

class Colors {
  constructor(dataset) {
    this.dataset = dataset;
    this.setTheme(false);
  }

  setTheme(isDark) {
    this.isDark = isDark;
    this.byKey = new Map();
    const style = getComputedStyle(document.documentElement);
    const named = (name) => style.getPropertyValue(`--${name}`).trim();
    this.text = isDark ? "#f6f4f0" : "#161412";
    this.root = this.themed([232, 232, 232]);
    /** Of frames too narrow to be drawn one by one. */
    this.hidden = this.themed([222, 214, 204]);
    this.background = named("background");
    this.match = named("match");
    this.focus = named("focus");
  }

  /** A colour of the light theme as it is in this one. */
  themed(rgb) {
    const [red, green, blue] = this.isDark ? rgb.map((part) => Math.round(part * DARKENED)) : rgb;
    return `rgb(${red},${green},${blue})`;
  }

  /** Of something without text on it, that need not be dark. */
  bright(category) {
    const [[from, to]] = [this.dataset.json.categories[category].ends];
    return `rgb(${from.map((part, i) => Math.round((part + to[i]) / 2)).join()})`;
  }

  /** In the middle of the shades. */
  ofCategory(category) {
    return this.shade(this.dataset.json.categories[category].ends, 0.5);
  }

  ofHue(hue) {
    return this.shade(this.dataset.json.changes.hues[hue].ends, 0.5);
  }

  /** Between the ends of shades, from 0 to 1. */
  shade([from, to], position) {
    return this.themed(from.map((part, i) => Math.round(part + (to[i] - part) * position)));
  }

  /** Of a function by its key. */
  ofKey(key) {
    if (key === NONE) return this.root;
    let color = this.byKey.get(key);
    if (!color) {
      color = this.ofFunction(key >> 1, this.dataset.json.categories[this.dataset.categoryOf(key)]);
      this.byKey.set(key, color);
    }
    return color;
  }

  /** Of a function in a category or a hue. */
  ofFunction(number, { ends }) {
    return this.shade(ends, this.dataset.json.functions.shades[number] / 1000);
  }
}
