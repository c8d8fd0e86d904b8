// The profile as the page holds it: decoded once, never changed.
//
// Functions have a name and a category. Calls are the nodes of the flame graph: a function called through one chain of
// callers, in preorder, so that a node's subtree is the range from the node to its `end`. Paths are one step finer:
// their nodes are places (source line, bytecode offset), and each path belongs to a call. Samples lie on paths and know
// their profile, thread, labels and slice of time. Numbers are doubles: exact up to 2^53.

/** Where a number stands for "none". */
const NONE = -1;

/** Reads what stands in the page: Base64 of gzip of the length of the JSON, the JSON and the columns. */
async function readDataset(base64) {
  const text = atob(base64.trim());
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return new Dataset(json, readColumns(bytes, 4 + length, json.columns));
}

/** Unsigned LEB128, as many numbers as the index says, column by column. */
function readColumns(bytes, position, index) {
  const columns = {};
  for (const [name, length] of index) {
    const column = new Float64Array(length);
    for (let i = 0; i < length; i++) {
      let byte = bytes[position++];
      let number = byte & 0x7f;
      for (let scale = 0x80; byte & 0x80; scale *= 0x80) {
        byte = bytes[position++];
        number += (byte & 0x7f) * scale;
      }
      column[i] = number;
    }
    columns[name] = column;
  }
  return columns;
}

class Dataset {
  constructor(json, columns) {
    this.json = json;
    this.names = json.functions.names;
    this.isComparison = json.changes !== null;
    this.sides = this.isComparison ? 2 : 1;
    /** In a comparison, by call: position in the hues. */
    this.callHue = columns.callHue;

    /** By call: function twice, and one more for an inlined copy. */
    this.callKey = Int32Array.from(columns.callFunction);
    this.calls = readPreorder(columns.callRise);
    this.paths = readPreorder(columns.pathRise);
    this.pathPlace = Int32Array.from(columns.pathPlace);
    this.pathCall = Int32Array.from(columns.pathCall);
    for (let path = 0; path < this.pathCall.length; path++) {
      const parent = this.paths.parent[path];
      if (parent !== NONE) this.pathCall[path] += this.pathCall[parent];
    }
    /** By place; what is not known is `NONE`. */
    this.placeFile = columns.placeFile.map((text) => text - 1);
    this.placeLine = columns.placeLine;
    this.placeModule = columns.placeModule.map((text) => text - 1);
    this.placeBytecode = columns.placeBytecode.map((offset) => offset - 1);

    this.samplePath = columns.samplePath;
    for (let i = 1; i < this.samplePath.length; i++) this.samplePath[i] += this.samplePath[i - 1];
    this.sampleProfile = columns.sampleProfile;
    this.sampleThread = columns.sampleThread.map((thread) => thread - 1);
    this.sampleLabels = columns.sampleLabels;
    this.sampleSlice = columns.sampleSlice.map((slice) => slice - 1);
    this.sampleCount = columns.sampleCount;
    this.sampleWeight = columns.sampleWeight;

    this.outermost = this.findOutermost();
    this.inHostCall = this.findHostCalls();
    this.pathsByCall = null;
  }

  nameOf(key) {
    return this.names[key >> 1];
  }

  /** Position in the categories of the legend. */
  categoryOf(key) {
    return this.json.functions.categories[key >> 1] + (key & 1);
  }

  /** Whether the profile belongs to the new build (1) or to the base or the only one (0). */
  sideOf(profile) {
    return this.isComparison && this.json.profiles[profile].is_new ? 1 : 0;
  }

  /** By call: whether no caller of it is the same function. Each stack has one such call of each of its functions. */
  findOutermost() {
    const outermost = new Uint8Array(this.callKey.length);
    const open = new Int32Array(this.names.length);
    const above = [];
    for (let call = 0; call < outermost.length; call++) {
      while (above.length > this.calls.depth[call]) open[above.pop()]--;
      const name = this.callKey[call] >> 1;
      outermost[call] = open[name]++ === 0 ? 1 : 0;
      above.push(name);
    }
    return outermost;
  }

  /** By call: whether it is in a call of the host. */
  findHostCalls() {
    const hostCall = 2;
    const inside = new Uint8Array(this.callKey.length);
    for (let call = 0; call < inside.length; call++) {
      const parent = this.calls.parent[call];
      const outer = parent !== NONE && inside[parent] === 1;
      inside[call] = outer || this.categoryOf(this.callKey[call]) === hostCall ? 1 : 0;
    }
    return inside;
  }

  /** The paths of a call. */
  pathsOf(call) {
    this.pathsByCall ??= groupBy(this.pathCall, this.callKey.length);
    const { start, items } = this.pathsByCall;
    return items.subarray(start[call], start[call + 1]);
  }
}

/** Depth, parent and end of each node, from how far each rises above the deepest that could follow the one before. */
function readPreorder(rises) {
  const length = rises.length;
  const depth = new Int32Array(length);
  const parent = new Int32Array(length);
  const end = new Int32Array(length);
  const above = [];
  for (let node = 0; node < length; node++) {
    for (let rise = rises[node]; rise > 0; rise--) end[above.pop()] = node;
    depth[node] = above.length;
    parent[node] = above.length ? above[above.length - 1] : NONE;
    above.push(node);
  }
  for (const node of above) end[node] = length;
  return { depth, parent, end };
}

/** The positions of `groups` by their value: those of group g lie from `start[g]` to `start[g + 1]`. */
function groupBy(groups, count) {
  const start = new Int32Array(count + 1);
  for (const group of groups) start[group + 1]++;
  for (let group = 0; group < count; group++) start[group + 1] += start[group];
  const next = start.slice();
  const items = new Int32Array(groups.length);
  for (let i = 0; i < groups.length; i++) items[next[groups[i]]++] = i;
  return { start, items };
}
