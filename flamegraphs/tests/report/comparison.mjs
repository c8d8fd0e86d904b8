// Two builds on one page: either of them, and their difference with what is beyond noise.

import assert from "node:assert/strict";
import { scenario } from "./chromium.mjs";
import { Comparer } from "./comparer.mjs";

const COSTLIER = [[222, 84, 68], [240, 118, 96]];
const CHEAPER = [[82, 142, 214], [118, 170, 230]];

scenario(async ({ browser, page, expected, picture }) => {
  const { compareFrames, compareColors, compareTable, cells, textOn } = new Comparer(browser);
  const graph = "#graph canvas";
  const name = expected.perWork ? "work" : "share";
  await browser.open(page);
  assert.equal(await browser.text("h1"), "app.wasm");
  assert.match(await browser.text("#notices"), /\* is beyond noise: together false with a probability of at most 5 %/);
  assert.match(await browser.text("#facts"), /base 1: .*base 5: .*new 1: .*new 5: /);
  await browser.press("i");
  await picture(`${name}-light`);

  // The difference, in the shape of the new build and of the base.
  const text = await textOn(graph, find("new", "parse"), expected.new.whole);
  assert.match(text, /^parse: .*change \+.*this call path became costlier$/);
  const costly = [[find("new", "parse"), COSTLIER]];
  // Without the work being known, what did not change is a smaller share of more, and says so.
  if (!expected.perWork) costly.push([find("new", "render"), CHEAPER]);
  await compareColors(graph, expected.new.whole, costly);
  await compareFrames(graph, expected.new.frames, expected.new.whole);

  // What is within noise says how large a change would have been found.
  const missed = new Map(expected.functions.map(({ name, missed }) => [name, missed && smallest(missed)]));
  for (const frame of expected.new.frames.filter(({ name }) => missed.get(name))) {
    const text = await textOn(graph, frame, expected.new.whole);
    const says = `but a change of the function's self by less than ${missed.get(frame.name)} may be missed`;
    assert.equal(text.includes(says), text.includes("within noise"), text);
  }

  // The call paths that explain it, each of which leads to its frame.
  const paths = await browser.value(`[...document.querySelectorAll("#details li")].map((item) => item.textContent)`);
  assert.deepEqual(paths, expected.paths.map(({ change, names }) => changeText(change, false) + names.join(" → ")));
  await browser.click("#details li:nth-child(2) button");
  assert.equal(await browser.text("#details h2"), expected.paths[1].names.at(-1));
  await browser.press("Escape");
  await browser.choose("#shape", "of b");
  await compareFrames(graph, expected.base.frames, expected.base.whole);
  await browser.choose("#shape", "of w");
  const vanished = ["all", ...expected.vanished[0]].map((name, depth) => ({ name, depth, start: 0, weight: 1 }));
  for (const frame of vanished) {
    const text = await textOn(graph, frame, 1);
    assert.ok(text.startsWith(`${frame.name}: `), text);
    assert.ok(text.includes(`share ${find("base", "old").share}`), text);
  }
  await picture(`${name}-vanished`);
  await browser.choose("#shape", "of n");

  // The table of changes, those beyond noise first.
  await browser.click("[data-view=table]");
  await picture(`${name}-table`);
  const rows = new Map((await cells("#table")).map(([own, , , total, , , name]) => [name, { own, total }]));
  assert.equal(rows.size, expected.functions.length);
  for (const row of expected.functions) {
    const { own, total } = rows.get(row.name);
    assert.equal(own, changeText(row.self, row.selfIsSignificant), row.name);
    assert.equal(total, changeText(row.total, row.totalIsSignificant), row.name);
  }
  const marks = [...rows.values()].map(({ own }) => own.endsWith("*"));
  assert.deepEqual(marks, [...marks].sort((a, b) => b - a));
  const hints = await browser.value(`[...document.querySelectorAll("#table .row")].map((row) =>
    [row.querySelector(".name").textContent, row.querySelector(".number").title])`);
  for (const [name, hint] of hints) {
    const size = missed.get(name);
    assert.equal(hint, size ? `a change of the function's self by less than ${size} may be missed` : "", name);
  }
  await browser.click("#table .row:nth-child(1)");
  assert.match(await browser.text("#sandwich dl"), /self change.*\*.*found by/);
  // Either build, by the switch; filters hold for both.
  for (const side of ["base", "new"]) {
    await browser.click("[data-view=table]");
    await browser.click(`[data-side=${side}]`);
    await compareTable(expected[side].all, false);
    await browser.choose(`select[data-key="tenant"]`, "u");
    await compareTable(expected[side].umbrella);
    await browser.click("#clear");
    await browser.press("1");
    await compareFrames(graph, expected[side].frames, expected[side].whole);
    await compareColors(graph, expected[side].whole, [[find(side, "parse"), [[226, 118, 42], [244, 166, 70]]]]);
  }
  await picture(`${name}-new`);
  await browser.open(page, { theme: "dark", hash: "#icicle=1" });
  await picture(`${name}-dark`);

  function find(side, name) {
    return expected[side].frames.find((frame) => frame.name === name);
  }

  function changeText(change, isSignificant) {
    const sign = change < 0 ? "−" : "+";
    const amount = Math.abs(change);
    const text = expected.perWork ? time(amount) : `${(100 * amount).toFixed(2)} pp`;
    return sign + text + (isSignificant ? "*" : "");
  }

  function smallest(change) {
    return expected.perWork ? time(change) : `${(100 * change).toFixed(2)} points`;
  }

  function time(nanoseconds) {
    if (nanoseconds === 0) return "0 s";
    const sizes = [[999_500, 1e3, "µs"], [999_500_000, 1e6, "ms"], [Infinity, 1e9, "s"]];
    const [, size, unit] = sizes.find(([end]) => nanoseconds < end);
    return `${(nanoseconds / size).toPrecision(3)} ${unit}`;
  }
});
