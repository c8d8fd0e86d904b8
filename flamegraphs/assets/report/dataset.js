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
  const stream = new Blob([fromBase64(base64.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return new Dataset(json, new Columns(bytes.subarray(4 + length), json.columns));
}

function fromBase64(text) {
  // Not in all browsers before 2026.
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * Columns of numbers in unsigned LEB128, one after the other. Most are decoded only when something is shown that needs
 * them: a page that opens has to show a graph first.
 */
class Columns {
  /** `index` has the name of each column, how many numbers it has, and how many bytes. */
  constructor(bytes, index) {
    this.bytes = bytes;
    this.places = new Map();
    let position = 0;
    for (const [name, length, size] of index) {
      this.places.set(name, { length, size, position });
      position += size;
    }
  }

  /** A column of numbers below 2^31, each plus `offset`. */
  small(name, offset = 0) {
    return this.read(name, Int32Array, offset);
  }

  /** A column of any numbers, each plus `offset`. */
  numbers(name, offset = 0) {
    return this.read(name, Float64Array, offset);
  }

  read(name, Kind, offset) {
    const { bytes } = this;
    let { length, size, position } = this.places.get(name) ?? { length: 0, size: 0, position: 0 };
    // Each number is one byte.
    if (size === length && offset === 0) return new Kind(bytes.subarray(position, position + size));
    const column = new Kind(length);
    for (let i = 0; i < length; i++) {
      let byte = bytes[position++];
      let number = byte & 0x7f;
      for (let scale = 0x80; byte & 0x80; scale *= 0x80) {
        byte = bytes[position++];
        number += (byte & 0x7f) * scale;
      }
      column[i] = number + offset;
    }
    return column;
  }
}

class Dataset {
  constructor(json, columns) {
    this.json = json;
    this.names = json.functions.names;
    this.isComparison = json.changes !== null;
    this.sides = this.isComparison ? 2 : 1;

    /** By call: function twice, and one more for an inlined copy. */
    this.callKey = columns.small("callFunction");
    this.calls = readPreorder(columns.small("callRise"));
    this.paths = readPreorder(columns.small("pathRise"));
    this.pathCall = columns.small("pathCall");
    for (let path = 0; path < this.pathCall.length; path++) {
      const parent = this.paths.parent[path];
      if (parent !== NONE) this.pathCall[path] += this.pathCall[parent];
    }
    this.samplePath = columns.small("samplePath");
    for (let i = 1; i < this.samplePath.length; i++) this.samplePath[i] += this.samplePath[i - 1];
    this.sampleProfile = columns.small("sampleProfile");
    this.sampleCount = columns.numbers("sampleCount");
    this.sampleWeight = columns.numbers("sampleWeight");

    const later = (name, make) => lazy(this, name, make);
    /** In a comparison, by call: position in the hues. */
    later("callHue", () => columns.small("callHue"));
    later("pathPlace", () => columns.small("pathPlace"));
    /** By place; what is not known is `NONE`. */
    later("placeFile", () => columns.small("placeFile", -1));
    later("placeLine", () => columns.numbers("placeLine"));
    later("placeModule", () => columns.small("placeModule", -1));
    later("placeBytecode", () => columns.numbers("placeBytecode", -1));
    later("sampleThread", () => columns.small("sampleThread", -1));
    later("sampleLabels", () => columns.small("sampleLabels"));
    later("sampleSlice", () => columns.numbers("sampleSlice", -1));
    later("outermost", () => this.findOutermost());
    later("inHostCall", () => this.findHostCalls());
    later("pathsByCall", () => groupBy(this.pathCall, this.callKey.length));
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
    /** By function: behind the last call below the outermost one that was found last. */
    const closed = new Int32Array(this.names.length);
    for (let call = 0; call < outermost.length; call++) {
      const number = this.callKey[call] >> 1;
      if (call < closed[number]) continue;
      outermost[call] = 1;
      closed[number] = this.calls.end[call];
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
    const { start, items } = this.pathsByCall;
    return items.subarray(start[call], start[call + 1]);
  }
}

/** Gives an object a property that is made when it is first asked for. */
function lazy(object, name, make) {
  Object.defineProperty(object, name, {
    configurable: true,
    get() {
      const value = make();
      Object.defineProperty(object, name, { value });
      return value;
    },
  });
}

/** Parent and end of each node, from how far each rises above the deepest that could follow the one before. */
function readPreorder(rises) {
  const { length } = rises;
  const parent = new Int32Array(length);
  const end = new Int32Array(length).fill(length);
  let above = NONE;
  for (let node = 0; node < length; node++) {
    for (let rise = rises[node]; rise > 0; rise--) {
      end[above] = node;
      above = parent[above];
    }
    parent[node] = above;
    above = node;
  }
  return { parent, end };
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
