// A page with many stacks appears, and answers, at once.

import assert from "node:assert/strict";
import { scenario } from "./chromium.mjs";

scenario(async ({ browser, page, expected, picture }) => {
  await browser.open(page);
  await browser.until(`performance.getEntriesByName("first paint of the graph").length > 0`);
  const { startTime } = await browser.value(`performance.getEntriesByName("first paint of the graph")[0].toJSON()`);
  const busy = await browser.busy();
  console.log(`first paint after ${Math.round(startTime)} ms, ${Math.round(busy)} ms of them busy`);
  assert.ok(busy > 0 && busy < 1000, `the page was busy for ${busy} ms`);
  assert.ok((await browser.text("#counted")).endsWith(` in ${expected.samples.toLocaleString("en")} samples`));
  await picture("light");
  for (const [name, keys] of [["reversed", "r"], ["table", "3"], ["sandwich", "2"], ["source", "4"], ["heavy", "1rl"]]) {
    await browser.type(keys);
    await picture(name);
  }
  // In the order of names, the youngest frames of the many functions are too narrow: a click takes a closer look.
  await browser.type("lr");
  const { left, top, width } = await browser.box("#graph canvas");
  await browser.press("i");
  await browser.mouse("mouseMoved", left + width / 2, top + 27);
  await browser.painted();
  assert.match(await browser.text("#tooltip"), /^[\d,]+ frames too narrow to be drawn$/);
  await browser.clickAt(left + width / 2, top + 27);
  for (let step = 0; step < 4; step++) await browser.wheel(left + width / 2, top + 27, { deltaY: -1000, modifiers: 2 });
  await browser.mouse("mouseMoved", left + width / 2, top + 27);
  await browser.painted();
  assert.match(await browser.text("#tooltip"), /^crate_.*: weight /);
  await picture("closer");
  assert.equal(await browser.text("#failure"), "");
});
