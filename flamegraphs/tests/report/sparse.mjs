// A profile of which hardly anything is known: what cannot be shown is not in the way.

import assert from "node:assert/strict";
import { scenario } from "./chromium.mjs";

scenario(async ({ browser, page, expected }) => {
  await browser.open(page);
  assert.equal(await browser.text("#counted"), expected.counted);
  for (const selector of ["#time", "#statistics", "#side"]) {
    assert.equal(await browser.value(`document.querySelector("${selector}").hidden`), true, selector);
  }
  // Every view and every key, and an address that means nothing.
  await browser.type("1234irlscnN1");
  for (const key of ["ArrowUp", "ArrowDown", "ArrowLeft", "Enter", "Backspace", "Escape"]) {
    await browser.click("#graph canvas");
    await browser.press(key);
  }
  const hash = "#view=nowhere&function=1e9&thread=-1&file=7&zoom=9.x.9&from=5&to=1&label=%7B&label=[1]&side=base";
  await browser.open(page, { hash });
  assert.equal(await browser.text("#counted"), expected.counted);
  await browser.type("234");
  assert.equal(await browser.text("#failure"), "");
});
