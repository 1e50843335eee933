// The world of these tests: a node with its mint and upstream, started once by `--example demo`, and a
// browser whose every page is watched.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { once } from "node:events";
import { readFileSync } from "node:fs";

const modules = process.env.COINSLOT_BROWSER_MODULES;
const require = createRequire(join(modules, "index.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** Starts the demo; answers with what it says of itself, and how to end it. */
export async function startDemo() {
  const command = process.env.COINSLOT_DEMO ?? "cargo run --quiet --example demo -- --json";
  const [program, ...rest] = command.split(" ");
  const demo = spawn(program, rest, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: demo.stdout });
  const [line] = await once(lines, "line", { signal: AbortSignal.timeout(60_000) });
  const ready = JSON.parse(line);
  const text = async (url, options) => {
    const answer = await fetch(url, options);
    const body = await answer.text();
    assert.ok(answer.ok, `${url}: ${answer.status} ${body}`);
    return body.trim();
  };
  return {
    ...ready,
    origin: ready.base_url.replace(/\/v1$/, ""),
    /** A fresh token of so many sat. */
    token: (sats) => text(`${ready.token_endpoint}?sats=${sats}`),
    /** Redeems a token at the mint: proof that it was good. Answers with its worth. */
    receive: async (token) => Number(await text(ready.receive_endpoint, { method: "POST", body: token })),
    /** Signs an event as the operator. */
    sign: (event) => text(ready.sign_endpoint, { method: "POST", body: JSON.stringify(event) }).then(JSON.parse),
    /** One paid request. */
    ask: (key, content) =>
      text(`${ready.base_url}/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify({ model: ready.model, messages: [{ role: "user", content }] }),
      }),
    /** Stops the mint, or starts it again: `stop`, `start`. */
    async mint(what) {
      const done = once(lines, "line", { signal: AbortSignal.timeout(30_000) });
      demo.stdin.write(`mint ${what}\n`);
      assert.equal((await done)[0], "done");
    },
    // It stays up until its standard input closes; then it proves its books.
    async end() {
      const ended = once(demo, "exit");
      demo.stdin.end();
      assert.equal((await ended)[0], 0, "the demo says why");
    },
  };
}

export function launch() {
  return chromium.launch({ executablePath: process.env.COINSLOT_CHROMIUM, headless: true, args: FLAGS });
}

/**
 * A page of this width and colour scheme, and `check()`, which fails on all that went wrong: violations
 * of the policy, errors on the console, requests to elsewhere, addresses or referrers with a secret.
 */
export async function open(browser, world, { width, scheme, script = false, cookies = false }) {
  const context = await browser.newContext({
    viewport: { width, height: width < 600 ? 780 : 1000 },
    colorScheme: scheme,
    javaScriptEnabled: script,
    deviceScaleFactor: 1,
    reducedMotion: "reduce",
    isMobile: width < 600,
    hasTouch: width < 600,
  });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => {
    // A status that is an error is what some tests ask for.
    const asked = /status of (400|401|404)/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !asked) faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => {
    const seen = `${request.url()} ${request.headers().referer ?? ""}`;
    if (!request.url().startsWith(world.origin)) faults.push(`a request to ${request.url()}`);
    if (/cashu[AB]|sk-[0-9a-f]/.test(seen)) faults.push(`a secret in ${seen}`);
  });
  const check = async () => {
    assert.deepEqual(faults, []);
    if (!cookies) assert.deepEqual(await context.cookies(), []);
    const { seen, wide } = await page.evaluate(() => ({
      seen: document.documentElement.clientWidth,
      wide: document.documentElement.scrollWidth,
    }));
    // A pixel is rounding.
    assert.ok(wide <= seen + 1, `the page is ${wide} px wide in a window of ${seen}`);
  };
  return { page, check, close: () => context.close() };
}

/** Fails on what a page denies to people who see, hear or point differently (WCAG 2.2 AA). */
export async function checkAccess(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  const lines = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  assert.deepEqual(lines, []);
}

/** Writes a screenshot where they are wanted. */
export async function picture(page, name, options = {}) {
  const folder = process.env.COINSLOT_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), ...options });
}
