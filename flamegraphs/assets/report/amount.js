// Weights, counts and shares as a person reads them: three significant digits for times, separators for counts.

/** Formats the weights of one profile. */
class Amounts {
  constructor(json) {
    this.isTime = json.is_time;
    this.isKnown = json.is_known;
    this.event = json.event;
  }

  weight(weight) {
    return this.isTime ? time(weight) : count(weight);
  }

  /** With what is counted, if that is known. */
  named(weight) {
    if (!this.isKnown) return `${this.event} ${count(weight)}`;
    return this.isTime ? time(weight) : `${count(weight)} ${this.event}`;
  }
}

const COUNTS = new Intl.NumberFormat("en");

function count(number) {
  return COUNTS.format(number);
}

function samples(number) {
  return number === 1 ? "1 sample" : `${count(number)} samples`;
}

function percent(share) {
  return `${(Number.isFinite(share) ? 100 * share : 0).toFixed(2)}%`;
}

/** A change of a share, in percentage points. */
function points(change) {
  return `${change < 0 ? "−" : "+"}${(100 * Math.abs(change)).toFixed(2)} pp`;
}

function time(nanoseconds) {
  if (nanoseconds === 0) return "0 s";
  if (nanoseconds < 1000) return `${Math.round(nanoseconds)} ns`;
  const [size, unit] = nanoseconds < 999_500 ? [1e3, "µs"] : nanoseconds < 999_500_000 ? [1e6, "ms"] : [1e9, "s"];
  const value = nanoseconds / size;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${unit}`;
}
