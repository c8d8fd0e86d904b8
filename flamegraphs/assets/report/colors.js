// What colour a frame has: by category, with a shade that depends on the name; in a difference, by change.

/** How far a colour goes towards black in the dark theme, so that light text can be read on it. */
const DARKENED = 0.52;
/** A change of this many of the whole has the full colour. */
const FULL_CHANGE = 0.1;

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
    this.background = named("background");
    this.match = named("match");
    this.focus = named("focus");
    this.mark = named("accent");
  }

  /** A colour of the light theme as it is in this one. */
  themed(rgb) {
    const [red, green, blue] = this.isDark ? rgb.map((part) => Math.round(part * DARKENED)) : rgb;
    return `rgb(${red},${green},${blue})`;
  }

  ofCategory(category) {
    const [from, to] = this.dataset.json.categories[category].ends;
    return this.themed(from.map((part, i) => Math.round((part + to[i]) / 2)));
  }

  /** Of a function by its key. */
  ofKey(key) {
    if (key === NONE) return this.root;
    let color = this.byKey.get(key);
    if (!color) {
      const [from, to] = this.dataset.json.categories[this.dataset.categoryOf(key)].ends;
      const position = this.dataset.json.functions.shades[key >> 1] / 1000;
      color = this.themed(from.map((part, i) => Math.round(part + (to[i] - part) * position)));
      this.byKey.set(key, color);
    }
    return color;
  }

  /** Of a change of a share: red for more, blue for less, grey for what may be chance. */
  ofChange(change, isSignificant) {
    if (!isSignificant || change === 0) return this.themed([214, 214, 212]);
    const strength = 0.25 + 0.75 * Math.min(1, Math.sqrt(Math.abs(change) / FULL_CHANGE));
    const full = change > 0 ? [226, 74, 62] : [66, 126, 222];
    return this.themed(full.map((part) => Math.round(part + (250 - part) * (1 - strength))));
  }
}
