// When samples fell: their weight over time, and the range that is looked at, chosen with the pointer or the keyboard.

class Timeline {
  /** `onRange(from, to)` hears a range in seconds, or twice null for all. */
  constructor(canvas, report, onRange) {
    this.canvas = canvas;
    this.report = report;
    this.onRange = onRange;
    const { dataset } = report;
    this.seconds = dataset.json.profiles.map((profile) => profile.slice_seconds ?? 0);
    this.step = Math.max(...this.seconds, 0);
    this.end = Math.max(...dataset.json.profiles.map((profile, number) => profile.slices * this.seconds[number]), 0);
    if (dataset.isComparison) canvas.title = "Weight over time: the base in the colour of guests, the new build in that of host calls";
    this.listen();
    new ResizeObserver(() => this.schedule()).observe(canvas);
  }

  /** Whether samples know their time at all. */
  get isKnown() {
    return this.end > 0;
  }

  /** `mask` says which samples count, whatever their time. */
  show(mask, from, to) {
    [this.mask, this.weights, this.from, this.to] = [mask, null, from, to];
    this.schedule();
  }

  /** Paints in the next frame, once. The first frame of a page has the graph to show. */
  schedule() {
    this.scheduled ??= requestAnimationFrame(() => {
      this.scheduled = null;
      this.paint();
    });
  }

  listen() {
    let start = null;
    const seconds = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return (Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))) * this.end;
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      start = seconds(event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (start === null) return;
      [this.from, this.to] = this.snapped(start, seconds(event));
      this.paint();
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (start === null) return;
      const end = seconds(event);
      const isClick = Math.abs(end - start) < (3 * this.end) / this.canvas.clientWidth;
      this.onRange(...(isClick ? [null, null] : this.snapped(start, end)));
      start = null;
    });
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** Arrow keys move the range by a tenth of it, with Shift its end. */
  onKey(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.onRange(null, null);
    else if (!direction) return;
    else {
      const [from, to] = [this.from ?? 0, this.to ?? this.end];
      const by = direction * Math.max(this.step, (to - from) / 10);
      const width = to - from;
      if (event.shiftKey) this.onRange(...this.snapped(from, Math.max(from + this.step, to + by)));
      else {
        const start = Math.min(this.end - width, Math.max(0, from + by));
        this.onRange(...this.snapped(start, start + width));
      }
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** In order, and widened to whole slices: a part of one cannot be told apart. */
  snapped(a, b) {
    const [from, to] = a < b ? [a, b] : [b, a];
    const tolerance = 1e-6;
    const whole = (value) => Number(value.toPrecision(12));
    return [
      whole(Math.floor(from / this.step + tolerance) * this.step),
      whole(Math.min(this.end, Math.ceil(to / this.step - tolerance) * this.step)),
    ];
  }

  /** Weight by pixel and side. A slice that is wider than a pixel is spread over all it covers. */
  heights(pixels) {
    const { dataset } = this.report;
    const heights = Array.from({ length: dataset.sides }, () => new Float64Array(pixels));
    this.weights ??= this.weigh(this.mask);
    this.weights.forEach((weights, profile) => {
      const width = (this.seconds[profile] * pixels) / this.end;
      const side = heights[dataset.sideOf(profile)];
      for (const [slice, weight] of weights) {
        const first = Math.min(pixels - 1, Math.floor(slice * width));
        const end = Math.min(pixels, Math.max(first + 1, Math.floor((slice + 1) * width)));
        for (let pixel = first; pixel < end; pixel++) side[pixel] += weight / (end - first);
      }
    });
    return heights;
  }

  /** The weight of the samples that count: by profile, a map from slice to weight. */
  weigh(mask) {
    const { sampleSlice, sampleProfile, sampleWeight } = this.report.dataset;
    const byProfile = this.seconds.map(() => new Map());
    for (let sample = 0; sample < mask.length; sample++) {
      if (!mask[sample] || sampleSlice[sample] === NONE) continue;
      const weights = byProfile[sampleProfile[sample]];
      weights.set(sampleSlice[sample], (weights.get(sampleSlice[sample]) ?? 0) + sampleWeight[sample]);
    }
    return byProfile;
  }

  paint() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.mask || !this.isKnown || width === 0) return;
    const ratio = window.devicePixelRatio;
    [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const heights = this.heights(width);
    const highest = Math.max(...heights.map((side) => side.reduce((a, b) => Math.max(a, b), 0)), 1);
    const { colors } = this.report;
    heights.forEach((side, number) => {
      context.fillStyle = colors.bright(number === 0 ? 0 : 2);
      context.globalAlpha = heights.length > 1 ? 0.6 : 1;
      side.forEach((weight, x) => {
        const bar = (weight / highest) * (height - 2);
        context.fillRect(x, height - bar, 1, bar);
      });
    });
    if (this.from === null && this.to === null) return;
    const [left, right] = [this.from ?? 0, this.to ?? this.end].map((second) => (second / this.end) * width);
    context.globalAlpha = 0.72;
    context.fillStyle = colors.background;
    context.fillRect(0, 0, left, height);
    context.fillRect(right, 0, width - right, height);
    context.globalAlpha = 1;
    context.strokeStyle = colors.focus;
    context.lineWidth = 2;
    context.strokeRect(left + 1, 1, Math.max(2, right - left - 2), height - 2);
  }
}
