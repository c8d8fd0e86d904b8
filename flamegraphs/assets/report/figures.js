// What falls on each call, function, path and line under one filter. Computed anew when the filter changes; what only
// some views need is computed when they ask.
//
// Every figure is kept for each side of a comparison: 0 for the base or the only build, 1 for the new one. A third one,
// `VANISHED`, is the part of the base whose calls are not in the new build at all.

const VANISHED = 2;

/** Weight and number of samples, by node, for one side. */
class Tallies {
  constructor(length) {
    this.weight = new Float64Array(length);
    this.count = new Float64Array(length);
  }

  add(node, other, from) {
    this.weight[node] += other.weight[from];
    this.count[node] += other.count[from];
  }

  /** With the figures of all nodes below added to each node. */
  accumulated(parent) {
    const total = new Tallies(0);
    const [weight, count] = [this.weight.slice(), this.count.slice()];
    for (let node = parent.length - 1; node >= 0; node--) {
      const above = parent[node];
      if (above === NONE) continue;
      weight[above] += weight[node];
      count[above] += count[node];
    }
    [total.weight, total.count] = [weight, count];
    return total;
  }
}

class Figures {
  /** `mask` says for each sample whether it counts. */
  constructor(dataset, mask) {
    this.dataset = dataset;
    this.mask = mask;
    const length = dataset.isComparison ? VANISHED + 1 : 1;
    this.perSide = (make) => Array.from({ length }, (_, side) => make(side));
    const { calls, callKey, pathCall, samplePath } = dataset;
    this.self = this.perSide(() => new Tallies(callKey.length));
    this.addSamples(this.self, (sample) => pathCall[samplePath[sample]]);
    const total = (side) => this.self[side].accumulated(calls.parent);
    this.total = this.perSide((side) => (side === VANISHED ? null : total(side)));
    this.whole = this.perSide((side) => this.sum(side));
    if (length <= VANISHED) return;
    // What fell on calls of the base that the new build does not have. Shares are those of the base.
    const [base, now, vanished] = [this.self[0], this.total[1], this.self[VANISHED]];
    for (let call = 0; call < callKey.length; call++) if (now.weight[call] === 0) vanished.add(call, base, call);
    this.total[VANISHED] = total(VANISHED);
    this.whole[VANISHED] = this.whole[0];
  }

  /** Adds each sample that counts to the tallies of its side, at the node that `nodeOf` gives. */
  addSamples(tallies, nodeOf) {
    const { dataset, mask } = this;
    const { sampleProfile, sampleWeight, sampleCount } = dataset;
    const ofProfile = dataset.json.profiles.map((_, profile) => tallies[dataset.sideOf(profile)]);
    for (let sample = 0; sample < mask.length; sample++) {
      if (!mask[sample]) continue;
      const { weight, count } = ofProfile[sampleProfile[sample]];
      const node = nodeOf(sample);
      weight[node] += sampleWeight[sample];
      count[node] += sampleCount[sample];
    }
  }

  /** Everything that counts on a side: what is above all roots. */
  sum(side) {
    const { end } = this.dataset.calls;
    const sum = { weight: 0, count: 0 };
    for (let call = 0; side !== VANISHED && call < end.length; call = end[call]) {
      sum.weight += this.total[side].weight[call];
      sum.count += this.total[side].count[call];
    }
    return sum;
  }

  /** Self by path. */
  get pathSelf() {
    return (this.selfOfPaths ??= this.countPaths());
  }

  countPaths() {
    const { pathCall, samplePath } = this.dataset;
    const self = this.perSide(() => new Tallies(pathCall.length));
    this.addSamples(self, (sample) => samplePath[sample]);
    for (let path = 0; self.length > VANISHED && path < pathCall.length; path++) {
      if (this.total[1].weight[pathCall[path]] === 0) self[VANISHED].add(path, self[0], path);
    }
    return self;
  }

  /** A weight of a side as a share of all that counts there. */
  share(side, weight) {
    return this.whole[side].weight > 0 ? weight / this.whole[side].weight : 0;
  }

  /** Self and total by function. A stack on which a function occurs more than once counts once. */
  get functions() {
    return (this.byFunction ??= this.perSide((side) => {
      const { callKey, outermost, names } = this.dataset;
      const self = new Tallies(names.length);
      const total = new Tallies(names.length);
      for (let call = 0; call < callKey.length; call++) {
        self.add(callKey[call] >> 1, this.self[side], call);
        if (outermost[call]) total.add(callKey[call] >> 1, this.total[side], call);
      }
      return { self, total };
    }));
  }

  get pathTotal() {
    return (this.accumulatedPaths ??= this.perSide((side) =>
      this.pathSelf[side].accumulated(this.dataset.paths.parent),
    ));
  }

  /**
   * Self and total by source line, as maps by file and then by line. A stack counts once for each of its lines,
   * however often it goes through it.
   */
  get lines() {
    return (this.byLine ??= this.perSide((side) => this.countLines(side)));
  }

  countLines(side) {
    const { paths, pathPlace, placeFile, placeLine } = this.dataset;
    const files = new Map();
    const lineOfPlace = Array.from(placeFile, (file, place) => {
      if (file === NONE || placeLine[place] === 0) return null;
      if (!files.has(file)) files.set(file, new Map());
      const lines = files.get(file);
      const number = placeLine[place];
      if (!lines.has(number)) lines.set(number, { number, end: 0, self: 0, total: 0, count: 0 });
      return lines.get(number);
    });
    const [self, total] = [this.pathSelf[side], this.pathTotal[side]];
    for (let path = 0; path < pathPlace.length; path++) {
      const line = lineOfPlace[pathPlace[path]];
      if (!line) continue;
      line.self += self.weight[path];
      // Below a path of the same line, all is counted already.
      if (path < line.end) continue;
      line.end = paths.end[path];
      line.total += total.weight[path];
      line.count += total.count[path];
    }
    return files;
  }

  /**
   * What falls on the stacks that have a call of a function in `matches`, each counted once; a share of the side.
   */
  matchedShare(side, matches) {
    const { callKey, calls } = this.dataset;
    let weight = 0;
    for (let call = 0; call < callKey.length; ) {
      const matched = matches[callKey[call] >> 1];
      if (matched) weight += this.total[side].weight[call];
      call = matched ? calls.end[call] : call + 1;
    }
    return this.share(side, weight);
  }
}
