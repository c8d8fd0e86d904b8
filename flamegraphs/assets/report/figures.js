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
    total.weight = this.weight.slice();
    total.count = this.count.slice();
    for (let node = parent.length - 1; node >= 0; node--) {
      if (parent[node] !== NONE) total.add(parent[node], total, node);
    }
    return total;
  }
}

class Figures {
  /** `mask` says for each sample whether it counts. */
  constructor(dataset, mask) {
    this.dataset = dataset;
    const length = dataset.isComparison ? VANISHED + 1 : 1;
    const perSide = (make) => Array.from({ length }, (_, side) => make(side));
    this.perSide = perSide;
    this.pathSelf = perSide(() => new Tallies(dataset.pathPlace.length));
    this.whole = perSide(() => ({ weight: 0, count: 0 }));
    const sides = dataset.json.profiles.map((_, profile) => dataset.sideOf(profile));
    for (let sample = 0; sample < dataset.samplePath.length; sample++) {
      if (!mask[sample]) continue;
      const side = sides[dataset.sampleProfile[sample]];
      const path = dataset.samplePath[sample];
      const [weight, count] = [dataset.sampleWeight[sample], dataset.sampleCount[sample]];
      this.pathSelf[side].weight[path] += weight;
      this.pathSelf[side].count[path] += count;
      this.whole[side].weight += weight;
      this.whole[side].count += count;
    }
    const { pathCall, calls, callKey } = dataset;
    [this.self, this.total] = [[], []];
    for (let side = 0; side < length; side++) {
      if (side === VANISHED) this.findVanished();
      this.self[side] = new Tallies(callKey.length);
      for (let path = 0; path < pathCall.length; path++) this.self[side].add(pathCall[path], this.pathSelf[side], path);
      this.total[side] = this.self[side].accumulated(calls.parent);
    }
  }

  /** What fell on paths of the base whose calls the new build does not have. Shares are those of the base. */
  findVanished() {
    const { pathCall } = this.dataset;
    for (let path = 0; path < pathCall.length; path++) {
      if (this.total[1].weight[pathCall[path]] === 0) this.pathSelf[VANISHED].add(path, this.pathSelf[0], path);
    }
    this.whole[VANISHED] = this.whole[0];
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
      if (!lines.has(number)) lines.set(number, { number, open: 0, self: 0, total: 0, count: 0 });
      return lines.get(number);
    });
    const above = [];
    for (let path = 0; path < pathPlace.length; path++) {
      while (above.length > paths.depth[path]) {
        const left = above.pop();
        if (left) left.open--;
      }
      const line = lineOfPlace[pathPlace[path]];
      above.push(line);
      if (!line) continue;
      line.self += this.pathSelf[side].weight[path];
      if (line.open++ === 0) {
        line.total += this.pathTotal[side].weight[path];
        line.count += this.pathTotal[side].count[path];
      }
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
