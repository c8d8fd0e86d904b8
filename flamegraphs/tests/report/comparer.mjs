// Compares what a page shows with what is expected of it.

import assert from "node:assert/strict";

/** Height of a row of a graph, in pixels. */
export const ROW = 18;

export class Comparer {
  constructor(browser) {
    this.browser = browser;
  }

  /** Where the middle of a frame is, in a graph that hangs from its root. */
  place = async (selector, { depth, start, weight }, whole) => {
    const { left, top, width } = await this.browser.box(selector);
    return [left + ((start + weight / 2) / whole) * width, top + (depth + 0.5) * ROW];
  };

  /** The text for the pointer on a frame. */
  textOn = async (selector, frame, whole, isUpright = false) => {
    const { top, height } = await this.browser.box(selector);
    const [x, y] = await this.place(selector, frame, whole);
    await this.browser.mouse("mouseMoved", x, isUpright ? 2 * top + height - y : y);
    await this.browser.painted();
    return this.browser.text("#tooltip");
  };

  /** Each frame is where it should be, and says what it should. */
  compareFrames = async (selector, frames, whole, isUpright = false) => {
    assert.ok(frames.length > 1);
    for (const frame of frames) {
      const text = await this.textOn(selector, frame, whole, isUpright);
      assert.ok(text.startsWith(`${frame.name}: `), `${text} instead of ${frame.name}`);
      assert.ok(text.includes(`share ${frame.share}`), `${text} instead of ${frame.share}`);
    }
  };

  /** The texts of a list, by row and column. */
  cells = (view) => {
    const row = "[...row.children].map((cell) => cell.textContent)";
    return this.browser.value(`[...document.querySelectorAll("${view} .row")].map((row) => ${row})`);
  };

  table = async () =>
    (await this.cells("#table")).map(([, ownShare, , totalShare, samples, name]) => ({
      name, ownShare, totalShare, samples,
    }));

  compareTable = async ({ rows, share, samples }, isPart = true) => {
    const text = rows.map(({ name, self_share, total_share, samples }) => ({
      name, ownShare: self_share, totalShare: total_share, samples: samples.toLocaleString("en"),
    }));
    assert.deepEqual(await this.table(), text);
    const counted = await this.browser.text("#counted");
    assert.ok(counted.includes(` in ${samples.toLocaleString("en")} samples`), counted);
    assert.equal(counted.includes(`(${share} of all)`), isPart, counted);
  };

  /** The red, green and blue of points of a canvas, read from a copy that is made to be read. */
  colors = (selector, points) =>
    this.browser.value(`(() => {
      const canvas = document.querySelector("${selector}");
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      return ${JSON.stringify(points)}.map(([x, y]) => [...copy.getImageData(x, y, 1, 1).data.slice(0, 3)]);
    })()`);

  /** At the upper edge of each frame, away from text, the canvas has a colour between two. */
  compareColors = async (selector, whole, expected) => {
    await this.browser.mouse("mouseMoved", 5, 5);
    await this.browser.painted();
    const { left, top } = await this.browser.box(selector);
    const points = [];
    for (const [frame] of expected) {
      const [x, y] = await this.place(selector, frame, whole);
      points.push([Math.round(x - left), Math.round(y - top - ROW / 2 + 2)]);
    }
    const colors = await this.colors(selector, points);
    expected.forEach(([frame, [from, to]], index) => {
      const isBetween = colors[index].every((part, i) => part >= from[i] && part <= to[i]);
      assert.ok(isBetween, `${frame.name} is ${colors[index]}`);
    });
  };
}
