// One profile that has everything, gone through as a person would: each figure is compared with what the test counted.

import assert from "node:assert/strict";
import { scenario } from "./chromium.mjs";
import { Comparer, ROW } from "./comparer.mjs";

/** The numbers of `rgb(…)`. */
const numbers = (color) => color.match(/\d+/g).map(Number);

/** Relative luminance, as the Web Content Accessibility Guidelines define it. */
function brightness(rgb) {
  const [red, green, blue] = rgb.map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a, b) {
  const [darker, lighter] = [brightness(a), brightness(b)].sort((x, y) => x - y);
  return (lighter + 0.05) / (darker + 0.05);
}

scenario(async ({ browser, page, expected, picture }) => {
  const graph = "#graph canvas";

  const { place, compareFrames, compareColors, cells, table, compareTable, colors: colorsOf } = new Comparer(browser);

  // Open: what is known about the run, and a policy that allows nothing else.
  await browser.open(page);
  const policy = await browser.value(`document.querySelector("meta[http-equiv]").content`);
  assert.match(policy, /^default-src 'none'; script-src 'sha256-[^ ]+'; style-src 'sha256-[^ ]+'; base-uri 'none'; form-action 'none'$/);
  await assert.rejects(browser.value(`fetch("data:text/plain,x").then((answer) => answer.text())`));
  assert.ok(browser.complaints.splice(0).every((text) => text.includes("Content Security Policy")));
  assert.equal(await browser.text("h1"), "app.wasm");
  assert.equal(await browser.value("document.title"), "app.wasm");
  const facts = await browser.text("#facts");
  for (const fact of ["eventcpu", "samples2,003", "rate950 Hz (asked 997 Hz)", "engineperf cpu-clock", "duration2.00 s",
    "endtrap: unreachable", "start2023-11-14 22:13:20 UTC"]) assert.ok(facts.includes(fact), `${fact} in ${facts}`);
  assert.equal(await browser.text("#notices"), `A notice ${expected.hostile}`);
  await browser.click("#statistics summary");
  assert.match(await browser.text("#statistics"), /Ticks \(2 lost\)ticks2,005 · .*lost: ring full2 · 2.00 ms/);
  await browser.click("#statistics summary");

  // The graph, standing and hanging.
  await compareFrames(graph, expected.frames, expected.whole, true);
  await picture("light");
  await browser.press("i");
  await compareFrames(graph, expected.frames, expected.whole);
  const colors = [
    ["main", [[226, 118, 42], [244, 166, 70]]],
    ["[host]", [[104, 162, 222], [150, 196, 242]]],
    ["[builtin]", [[108, 190, 128], [152, 216, 160]]],
    ["[truncated]", [[176, 176, 176], [176, 176, 176]]],
  ];
  const named = (start) => expected.frames.find(({ name }) => name.startsWith(start));
  await compareColors(graph, expected.whole, colors.map(([start, ends]) => [named(start), ends]));

  // Zoom by click, and back; by keys; by wheel.
  const render = expected.frames.find(({ depth, name }) => depth === 2 && name === "render" );
  const inMain = expected.frames.filter(({ depth, name }) => depth === 2 && name === "render").at(-1);
  assert.notEqual(render, inMain, "one below the truncated root, one below main");
  await browser.clickAt(...(await place(graph, inMain, expected.whole)));
  assert.equal(await browser.text("#details h2"), "render");
  assert.ok((await browser.text("#details dl")).includes(inMain.share));
  const places = () =>
    browser.value(`[...document.querySelectorAll("#details li")].map((item) => item.textContent)`);
  assert.deepEqual(await places(), expected.renderPlaces);
  const zoomed = expected.frames
    .filter((frame) => frame.depth > 2 && frame.start >= inMain.start)
    .map((frame) => ({ ...frame, start: frame.start - inMain.start }));
  await compareFrames(graph, zoomed, inMain.weight);
  await picture("zoomed");
  const address = await browser.value("location.hash");
  assert.match(address, /zoom=\d+\.\d+/);
  await browser.press("Escape");
  await compareFrames(graph, expected.frames, expected.whole);
  await browser.press("Home");
  await browser.press("ArrowDown");
  assert.equal(await browser.text("#details h2"), "main");
  await browser.press("ArrowDown");
  await browser.press("ArrowLeft");
  assert.equal(await browser.text("#details h2"), "parse");
  await browser.press("Enter");
  const parse = expected.frames.find(({ name }) => name === "parse");
  const inParse = expected.frames
    .filter(({ depth, start }) => depth > 2 && start >= parse.start && start < parse.start + parse.weight)
    .map((frame) => ({ ...frame, start: frame.start - parse.start }));
  await compareFrames(graph, inParse.concat({ ...parse, start: 0 }, { ...parse, start: 0 }), parse.weight);
  await browser.press("Backspace");
  await browser.press("Backspace");
  await compareFrames(graph, expected.frames, expected.whole);
  // Ctrl and the wheel halve the window around the pointer, at three quarters of the width.
  const box = await browser.box(graph);
  const ln2 = Math.LN2 * 500;
  await browser.wheel(box.left + 0.75 * box.width, box.top + 5, { deltaY: -ln2, modifiers: 2 });
  const [from, to] = [0.375 * expected.whole, 0.875 * expected.whole];
  const inside = expected.frames
    .filter(({ start, weight }) => start >= from && start + weight <= to)
    .map((frame) => ({ ...frame, start: frame.start - from }));
  await compareFrames(graph, inside, expected.whole / 2);
  // A search leaves the window as it is.
  await browser.press("/");
  await browser.type("scan");
  await compareFrames(graph, inside, expected.whole / 2);
  await browser.press("Escape");
  await browser.value(`document.querySelector("${graph}").focus()`);
  await browser.press("Escape");
  await compareFrames(graph, expected.frames, expected.whole);

  // The address alone brings the zoomed graph back.
  await browser.open(page, { hash: address });
  await compareFrames(graph, zoomed, inMain.weight);
  await browser.press("r");
  await compareFrames(graph, expected.reversed, expected.whole);
  const parent = expected.reversed.find(({ depth, name }) => depth === 2 && name === "parse");
  await browser.clickAt(...(await place(graph, parent, expected.whole)));
  assert.deepEqual(await places(), expected.callerPlaces);
  await picture("reversed");
  await browser.press("Escape");
  await browser.press("l");
  await browser.mouse("mouseMoved", box.left + 2, box.top + 1.5 * ROW);
  await browser.painted();
  const heaviest = expected.reversed.filter(({ depth }) => depth === 1).sort((a, b) => b.weight - a.weight)[0];
  assert.ok((await browser.text("#tooltip")).startsWith(`${heaviest.name}: `));
  await browser.press("l");
  await browser.press("r");

  // Search: text, expression, what is not one.
  await browser.press("/");
  await browser.type("IO::WRITE");
  assert.equal(await browser.text("#found"), `${expected.text} matched`);
  await picture("search");
  await browser.press("Enter");
  assert.equal(await browser.text("#details h2"), "std::io::Write::write_all");
  await browser.press("Escape");
  assert.equal(await browser.text("#found"), "");
  await browser.click("#regex");
  await browser.press("/");
  await browser.type("^PARSE|grow$");
  assert.equal(await browser.text("#found"), `${expected.expression} matched`);
  await browser.type("(");
  assert.equal(await browser.value(`document.querySelector("#search").getAttribute("aria-invalid")`), "true");
  assert.match(await browser.text("#found"), /Unterminated group/);
  await browser.press("Escape");

  // The table, and each filter.
  await browser.click("[data-view=table]");
  await compareTable(expected.all, false);
  assert.ok((await table()).some(({ name }) => name === expected.hostile));
  await browser.choose("#thread", "worker");
  await compareTable(expected.worker);
  await picture("table");
  await browser.click("#clear");
  await browser.choose(`select[data-key="tenant"]`, "u");
  await compareTable(expected.umbrella);
  await browser.click("#clear");
  await browser.click("#host-calls");
  await compareTable(expected.hostCalls);
  await browser.click("#clear");
  const line = await browser.box("#timeline");
  const at = (share) => [line.left + share * line.width, line.top + 10];
  await browser.drag(at(0.2525), at(0.4975));
  assert.deepEqual(await browser.value(`[document.querySelector("#from").value, document.querySelector("#to").value]`), ["0.5", "1"]);
  await compareTable(expected.quarter);
  await picture("time");
  await browser.open(page, { hash: await browser.value("location.hash"), theme: "dark" });
  await compareTable(expected.quarter);
  await browser.press("c");
  await compareTable(expected.all, false);
  await browser.click("#table .head [role=columnheader]:nth-child(5) button");
  const bySamples = (await table()).map(({ samples }) => Number(samples.replaceAll(",", "")));
  assert.deepEqual(bySamples, [...bySamples].sort((a, b) => b - a));
  await picture("dark-table");

  // The sandwich of each function has the figures of the table; one with its callers and callees.
  for (const { name, self_share, total_share, self_samples, samples } of expected.all.rows) {
    const rows = await table();
    await browser.click(`#table .row:nth-child(${rows.findIndex((row) => row.name === name) + 1})`);
    assert.equal(await browser.text("#sandwich h2"), name);
    const text = await browser.text("#sandwich dl");
    for (const part of [`(${self_share})total`, `(${total_share})samples`,
      `${self_samples.toLocaleString("en")} self, ${samples.toLocaleString("en")} total`]) {
      assert.ok(text.includes(part), `${part} in ${text}`);
    }
    if (name === "render") {
      await compareFrames(".callers canvas", expected.callers.frames, expected.callers.weight, true);
      await compareFrames(".callees canvas", expected.callees.frames, expected.callees.weight);
      await picture("dark-sandwich");
    }
    await browser.press("3");
  }

  // Source lines: those that were sampled have their shares, the text keeps its place, nothing else is embedded.
  await browser.press("4");
  const shown = new Map((await cells("#source")).map(([self, total, number, text]) => [Number(number), { self, total, text }]));
  for (const { number, self_share, total_share } of expected.lines.filter(({ number }) => shown.has(number))) {
    assert.deepEqual(shown.get(number), {
      self: self_share, total: total_share, text: `    line_${number}("</script>");`,
    });
  }
  assert.ok(expected.lines.filter(({ number }) => shown.has(number)).length >= 5);
  assert.equal(await browser.value(`document.querySelectorAll("#source select option").length`), 1);
  await picture("dark-source");

  // Light and dark by the switch, the help, and focus that can be seen.
  const background = () => browser.value(`getComputedStyle(document.body).backgroundColor`);
  const dark = await background();
  await browser.press("t");
  assert.notEqual(await background(), dark);
  await browser.press("t");
  assert.equal(await background(), dark);
  await browser.press("?");
  assert.ok(await browser.value(`document.querySelector("#help").open`));
  await picture("dark-help");
  await browser.press("Escape");
  assert.ok(!(await browser.value(`document.querySelector("#help").open`)));
  await browser.press("1");
  for (let step = 0; step < 30; step++) {
    await browser.press("Tab");
    const focus = await browser.value(`(() => {
      const { activeElement: element } = document;
      return { tag: element.tagName, outline: getComputedStyle(element).outlineStyle,
        name: element.ariaLabel ?? element.labels?.[0]?.textContent ?? element.textContent };
    })()`);
    if (focus.tag === "BODY") break;
    assert.notEqual(focus.outline, "none", JSON.stringify(focus));
    assert.ok(focus.name.trim(), JSON.stringify(focus));
    if (focus.tag === "CANVAS" && focus.name.startsWith("Flame graph")) break;
    assert.notEqual(step, 29, "the graph can be reached");
  }
  await browser.press("ArrowDown");
  await browser.press("ArrowDown");
  assert.match(await browser.text("#chosen"), /^main: weight /);
  await picture("dark");

  // Whatever can have the focus has a name, in each view.
  for (const view of ["1", "2", "3", "4"]) {
    await browser.press(view);
    const focusable = await browser.focusable();
    assert.ok(focusable.length > 15, `${focusable.length} controls`);
    for (const { role, name } of focusable) assert.ok(name.trim(), `a ${role} without a name in view ${view}`);
  }

  // Names can be read on whatever colour is there, in both themes.
  await browser.press("1");
  for (const theme of ["dark", "light"]) {
    const { background, text } = await browser.value(`({
      background: getComputedStyle(document.body).backgroundColor, text: getComputedStyle(document.body).color,
    })`);
    const isDark = brightness(numbers(background)) < brightness(numbers(text));
    assert.equal(isDark, theme === "dark");
    await browser.mouse("mouseMoved", 5, 5);
    await browser.painted();
    const { left, top, height } = await browser.box(graph);
    const all = [{ depth: 0, start: 0, weight: expected.whole, name: "all" }, ...expected.frames];
    const points = [];
    for (const frame of all) {
      const [x, y] = await place(graph, frame, expected.whole);
      points.push([Math.round(x - left), Math.round(height - (y - top) - ROW / 2 + 2)]);
    }
    const frameText = isDark ? [246, 244, 240] : [22, 20, 18];
    (await colorsOf(graph, points)).forEach((color, index) => {
      const ratio = contrast(color, frameText);
      assert.ok(ratio >= 4.5, `${all[index].name} in the ${theme} theme: ${color}, ${ratio} to 1`);
    });
    await browser.press("t");
  }

  // In a narrow window nothing is beside it, and the graph has all of the width.
  await browser.press("1");
  await browser.resize(420);
  const { scrollWidth, clientWidth } = await browser.value(`(({ scrollWidth, clientWidth }) => ({ scrollWidth, clientWidth }))(document.documentElement)`);
  assert.ok(scrollWidth <= clientWidth, `${scrollWidth} of ${clientWidth}`);
  assert.equal((await browser.box(graph)).width, clientWidth);
  await picture("narrow");
  await browser.press("3");
  const names = await browser.value(`[...document.querySelectorAll("#table .row .name")].map((name) => name.getBoundingClientRect().right)`);
  assert.ok(names.length > 1 && names.every((right) => right > 50 && right <= clientWidth), `${names}`);
  await picture("narrow-table");
});
