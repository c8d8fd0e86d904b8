// The tree that a graph draws, made as far as it is looked at.
//
// A branch stands for calls that are drawn as one frame. Towards the callees, its members are the calls themselves and
// what falls on it is their total. Towards the callers, each member is an ancestor of an origin, and what falls on the
// branch is what the origins carry: their self (a graph from the youngest frames down) or their total (callers of one
// function). Either way each stack counts once on each level.

class Branch {
  constructor(tree, parent, key, members, origins) {
    this.tree = tree;
    this.parent = parent;
    this.key = key;
    this.members = members;
    this.origins = origins;
    this.depth = parent ? parent.depth + 1 : 0;
    /** Where it starts, in the weights of the root; set when the parent places its children. */
    this.start = 0;
    this.below = null;
    this.tallies = tree.sum(origins ?? members);
  }

  /** Weight of the side that gives the widths. */
  get width() {
    return this.tallies[this.tree.shape].weight;
  }

  /** Those with any width, from left to right. */
  get children() {
    return (this.below ??= this.tree.expand(this));
  }

  /** Keys from below the root down to here. */
  get path() {
    const keys = [];
    for (let branch = this; branch.parent; branch = branch.parent) keys.push(branch.key);
    return keys.reverse();
  }
}

/** Orders of siblings. Keys are in the order of names. */
const BY_NAME = (a, b) => a.key - b.key;
const LEFT_HEAVY = (a, b) => b.width - a.width || a.key - b.key;

class CallTree {
  /** `carried` are the figures that branches sum: by side, by call. */
  constructor(dataset, carried, towardsCallers, order, shape) {
    this.dataset = dataset;
    this.carried = carried;
    this.towardsCallers = towardsCallers;
    this.order = order;
    this.shape = shape;
  }

  /** All stacks from the oldest frames up. */
  static ofCallees(dataset, figures, order, shape) {
    const tree = new CallTree(dataset, figures.total, false, order, shape);
    const roots = [];
    for (let call = 0; call < dataset.callKey.length; call = dataset.calls.end[call]) roots.push(call);
    return tree.withRoot(new Branch(tree, null, NONE, roots, null), roots);
  }

  /** All stacks from the youngest frames down. */
  static ofCallers(dataset, figures, order, shape) {
    const tree = new CallTree(dataset, figures.self, true, order, shape);
    const youngest = [];
    for (let call = 0; call < dataset.callKey.length; call++) {
      if (figures.self.some((side) => side.weight[call] > 0)) youngest.push(call);
    }
    return tree.withRoot(new Branch(tree, null, NONE, youngest, youngest), youngest);
  }

  /** What a function calls, or what calls it. The root is the function. */
  static ofFunction(dataset, figures, number, towardsCallers, order, shape) {
    const tree = new CallTree(dataset, figures.total, towardsCallers, order, shape);
    const calls = [];
    for (let call = 0; call < dataset.callKey.length; call++) {
      if (dataset.callKey[call] >> 1 === number && dataset.outermost[call]) calls.push(call);
    }
    tree.root = new Branch(tree, null, 2 * number, calls, towardsCallers ? calls : null);
    return tree;
  }

  /** The root's children are the calls themselves, not what is above or below them. */
  withRoot(root, calls) {
    this.root = root;
    root.below = this.place(root, this.group(root, calls, calls));
    return this;
  }

  sum(calls) {
    return this.carried.map((side) => {
      let [weight, count] = [0, 0];
      for (const call of calls) {
        weight += side.weight[call];
        count += side.count[call];
      }
      return { weight, count };
    });
  }

  expand(branch) {
    const { parent, end } = this.dataset.calls;
    const next = [];
    const origins = [];
    branch.members.forEach((call, i) => {
      if (this.towardsCallers) {
        if (parent[call] === NONE) return;
        next.push(parent[call]);
        origins.push(branch.origins[i]);
      } else {
        for (let child = call + 1; child < end[call]; child = end[child]) next.push(child);
      }
    });
    return this.place(branch, this.group(branch, next, origins));
  }

  /** Branches for calls, those of one function together. */
  group(parent, calls, origins) {
    // Without callers in common, and that is nearly everywhere, there is nothing to put together.
    if (parent.members.length === 1 && !this.towardsCallers) {
      return calls.map((call) => new Branch(this, parent, this.dataset.callKey[call], [call], null));
    }
    const groups = new Map();
    calls.forEach((call, i) => {
      const key = this.dataset.callKey[call];
      if (!groups.has(key)) groups.set(key, { members: [], origins: this.towardsCallers ? [] : null });
      const group = groups.get(key);
      group.members.push(call);
      group.origins?.push(origins[i]);
    });
    return Array.from(groups, ([key, group]) => new Branch(this, parent, key, group.members, group.origins));
  }

  place(parent, children) {
    const shown = children.filter((child) => child.width > 0).sort(this.order);
    let start = parent.start;
    for (const child of shown) {
      child.start = start;
      start += child.width;
    }
    return shown;
  }

  /** The branch at a path of keys, as far as it still exists. */
  find(path) {
    let branch = this.root;
    for (const key of path) {
      const child = branch.children.find((child) => child.key === key);
      if (!child) break;
      branch = child;
    }
    return branch;
  }

  /** The heaviest branch at a path of functions, whether inlined or not, if there is one. */
  findFunctions(functions) {
    let found = [this.root];
    for (const number of functions) {
      found = found.flatMap(({ children }) => children.filter(({ key }) => key >> 1 === number));
    }
    return found.reduce((best, branch) => (branch.width > (best?.width ?? 0) ? branch : best), null);
  }

  /** What falls on the places of a branch's frames: by side, a map from place to tally. */
  places(branch, figures) {
    const carried = this.towardsCallers && this.carried === figures.self ? figures.pathSelf : figures.pathTotal;
    const { paths, pathPlace } = this.dataset;
    // From the call of an origin up to this branch, there are as many steps as in the branches' tree.
    let steps = 0;
    if (this.towardsCallers) steps = branch.depth - (this.root.key === NONE ? 1 : 0);
    return carried.map((side) => {
      const places = new Map();
      for (const call of branch.origins ?? branch.members) {
        for (const path of this.dataset.pathsOf(call)) {
          if (side.weight[path] === 0 && side.count[path] === 0) continue;
          let at = path;
          for (let step = 0; step < steps; step++) at = paths.parent[at];
          const tally = places.get(pathPlace[at]) ?? { weight: 0, count: 0 };
          tally.weight += side.weight[path];
          tally.count += side.count[path];
          places.set(pathPlace[at], tally);
        }
      }
      return places;
    });
  }
}
