// Chromium without a window, spoken to through a pipe: real clicks, keys and wheel turns, as the DevTools protocol
// delivers them, and everything that the page complains about.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const KEY_CODES = {
  Enter: 13, Escape: 27, Backspace: 8, Tab: 9, Home: 36, End: 35,
  ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40,
};
const MODIFIERS = { Alt: 1, Control: 2, Meta: 4, Shift: 8 };

/** A browser with one page, 1280 × 800. */
export class Browser {
  static async start(program) {
    const browser = new Browser();
    browser.folder = mkdtempSync(join(tmpdir(), "flamewalk-chromium-"));
    // The sandbox needs rights that containers often lack; the page is our own.
    const options = [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
      "--no-first-run", "--disable-extensions", "--disable-background-networking", "--force-color-profile=srgb",
      `--user-data-dir=${browser.folder}`, "--window-size=1280,800", "about:blank",
    ];
    browser.process = spawn(program, options, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    browser.pending = new Map();
    browser.complaints = [];
    browser.requests = [];
    browser.process.on("error", (error) => browser.fail(error));
    browser.process.on("exit", (code) => browser.fail(new Error(`Chromium has ended with ${code}`)));
    let rest = "";
    browser.process.stdio[4].setEncoding("utf8").on("data", (text) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      for (const message of messages) browser.hear(JSON.parse(message));
    });
    const { targetInfos } = await browser.send("Target.getTargets");
    const { targetId } = targetInfos.find(({ type }) => type === "page");
    browser.session = (await browser.send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await browser.send(`${domain}.enable`);
    await browser.send("Performance.enable", { timeDomain: "threadTicks" });
    await browser.resize(1280);
    return browser;
  }

  /** Whatever is still expected will not come. */
  fail(error) {
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }

  hear({ id, result, error, method, params }) {
    if (id !== undefined) {
      const { resolve, reject } = this.pending.get(id);
      this.pending.delete(id);
      if (error) reject(new Error(error.message));
      else resolve(result);
    } else if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      this.complaints.push(`${text} ${exception?.description ?? ""}`);
    } else if (method === "Runtime.consoleAPICalled") {
      this.complaints.push(params.args.map(({ value, description }) => value ?? description).join(" "));
    } else if (method === "Log.entryAdded") {
      this.complaints.push(params.entry.text);
    } else if (method === "Page.javascriptDialogOpening") {
      this.complaints.push(`dialog: ${params.message}`);
      this.send("Page.handleJavaScriptDialog", { accept: true });
    } else if (method === "Network.requestWillBeSent") {
      this.requests.push(params.request.url);
    }
  }

  send(method, params = {}) {
    const id = (this.messages = (this.messages ?? 0) + 1);
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((resolve, reject) => this.pending.set(id, { resolve, reject }));
  }

  /** Opens a file, in a theme, and waits until it is drawn. */
  async open(file, { theme = "light", hash = "" } = {}) {
    const features = [{ name: "prefers-color-scheme", value: theme }];
    await this.send("Emulation.setEmulatedMedia", { features });
    // Another address behind the `#` alone would not load the page anew.
    await this.send("Page.navigate", { url: "about:blank" });
    await this.send("Page.navigate", { url: pathToFileURL(file).href + hash });
    await this.until(`document.querySelector("main")?.getAttribute("aria-busy") === "false"`);
    await this.painted();
  }

  /** The value of an expression in the page. */
  async value(expression) {
    const answer = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (answer.exceptionDetails) throw new Error(`${expression}: ${answer.exceptionDetails.exception.description}`);
    return answer.result.value;
  }

  text(selector) {
    return this.value(`document.querySelector(${JSON.stringify(selector)}).textContent`);
  }

  /** Waits for a condition in the page, checked at each of its frames. */
  until(condition) {
    return this.value(`new Promise((resolve, reject) => {
      const end = performance.now() + 30_000;
      const check = () => (${condition}) ? resolve() : performance.now() > end
        ? reject(new Error("waited in vain")) : requestAnimationFrame(check);
      check();
    })`);
  }

  /** Until what was changed is on the screen, and observers of sizes have run. */
  painted() {
    return this.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))");
  }

  /** Milliseconds that the thread of the page that was opened last has run, whatever else the machine was doing. */
  async busy() {
    const { metrics } = await this.send("Performance.getMetrics");
    return 1000 * metrics.find(({ name }) => name === "TaskDuration").value;
  }

  box(selector) {
    return this.value(`(() => {
      const { left, top, width, height } = document.querySelector(${JSON.stringify(selector)}).getBoundingClientRect();
      return { left, top, width, height };
    })()`);
  }

  async mouse(type, x, y, more = {}) {
    await this.send("Input.dispatchMouseEvent", { type, x, y, ...more });
  }

  async clickAt(x, y) {
    await this.mouse("mouseMoved", x, y);
    await this.mouse("mousePressed", x, y, { button: "left", clickCount: 1, buttons: 1 });
    await this.mouse("mouseReleased", x, y, { button: "left", clickCount: 1 });
    await this.painted();
  }

  async click(selector) {
    const { left, top, width, height } = await this.box(selector);
    if (width === 0) throw new Error(`${selector} cannot be seen`);
    await this.clickAt(left + width / 2, top + height / 2);
  }

  async drag(from, to) {
    await this.mouse("mouseMoved", ...from);
    await this.mouse("mousePressed", ...from, { button: "left", clickCount: 1, buttons: 1 });
    await this.mouse("mouseMoved", (from[0] + to[0]) / 2, (from[1] + to[1]) / 2, { button: "left", buttons: 1 });
    await this.mouse("mouseMoved", ...to, { button: "left", buttons: 1 });
    await this.mouse("mouseReleased", ...to, { button: "left", clickCount: 1 });
    await this.painted();
  }

  async wheel(x, y, { deltaX = 0, deltaY = 0, modifiers = 0 }) {
    await this.mouse("mouseWheel", x, y, { deltaX, deltaY, modifiers });
    await this.painted();
  }

  /** Presses a key: a character, a name such as `Enter`, or with modifiers as in `Shift+Tab`. */
  async press(keys) {
    const names = keys.length > 1 ? keys.split("+") : [keys];
    const key = names.pop();
    const modifiers = names.reduce((sum, name) => sum | MODIFIERS[name], 0);
    // The codes of other characters are those of their places on a keyboard, which do not matter here.
    const code = KEY_CODES[key] ?? (/^[a-z0-9]$/i.test(key) ? key.toUpperCase().charCodeAt(0) : 0);
    const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
    const event = { key, modifiers, windowsVirtualKeyCode: code };
    await this.send("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", text, ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
    await this.painted();
  }

  async type(text) {
    for (const key of text) await this.press(key);
  }

  /** Chooses the option whose text starts as given, with the arrow keys. */
  async choose(selector, text) {
    const index = await this.value(`(() => {
      const list = document.querySelector(${JSON.stringify(selector)});
      list.focus();
      return [...list.options].findIndex((option) => option.text.startsWith(${JSON.stringify(text)}));
    })()`);
    if (index < 0) throw new Error(`${selector} has no option ${text}`);
    await this.press("Home");
    for (let step = 0; step < index; step++) await this.press("ArrowDown");
  }

  /** A window of another width. */
  async resize(width) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height: 800, deviceScaleFactor: 1, mobile: false });
    await this.painted();
  }

  /** What assistive technology is told of everything that can have the focus: role and name. */
  async focusable() {
    const { nodes } = await this.send("Accessibility.getFullAXTree");
    const can = ({ properties = [] }) => properties.some(({ name, value }) => name === "focusable" && value.value);
    return nodes
      .filter((node) => !node.ignored && node.role.value !== "RootWebArea" && can(node))
      .map(({ role, name }) => ({ role: role.value, name: name?.value ?? "" }));
  }

  async picture(file) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    writeFileSync(file, Buffer.from(data, "base64"));
  }

  async stop() {
    const { exitCode, signalCode } = this.process;
    const hasEnded = exitCode !== null || signalCode !== null;
    const ended = hasEnded || new Promise((resolve) => this.process.once("exit", resolve));
    // One that hangs must not keep the test from saying so.
    setTimeout(() => this.process.kill("SIGKILL"), 10_000).unref();
    this.pending.clear();
    this.process.stdio[3].write(`${JSON.stringify({ id: 0, method: "Browser.close" })}\0`);
    this.pending.set(0, { resolve() {}, reject() {} });
    await ended;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * Runs a scenario as its script was called: with Chromium, a page, what is expected, and a folder for pictures. It has
 * failed if the page complained about anything or asked for anything but itself.
 */
export async function scenario(act) {
  const [chromium, page, expectedFile, folder] = process.argv.slice(2);
  const expected = JSON.parse(readFileSync(expectedFile, "utf8"));
  const browser = await Browser.start(chromium);
  try {
    await act({ browser, page, expected, picture: (name) => browser.picture(join(folder, `${name}.png`)) });
    const elsewhere = browser.requests.filter((url) => !url.startsWith(pathToFileURL(page).href));
    if (elsewhere.length) throw new Error(`the page asked for ${elsewhere}`);
    if (browser.complaints.length) throw new Error(`the page complained: ${browser.complaints.join("\n")}`);
  } catch (error) {
    process.exitCode = 1;
    console.error(error, browser.complaints);
    await browser.picture(join(folder, "failed.png")).catch(() => {});
  } finally {
    await browser.stop();
  }
}
