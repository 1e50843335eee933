// The world of these tests: a mint and a node, started by the demo, in front of the upstream of `upstream.mjs` or
// the demo's own, which answers at every endpoint.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";

import * as upstream from "./upstream.mjs";

/** What is asked of the node by its full name, and by the name that its clients use. */
export const CODEX = "gpt-5-codex";
export const CLAUDE = "claude-sonnet-4-5";

const START_MS = 60_000;

/** Starts it; `tools` says how an agent is told to write a file. Without them, the upstream is the demo's own. */
export async function start(tools) {
  const api = tools && (await upstream.start(tools));
  const models = path.join(import.meta.dirname, "models.json");
  const behind = api ? ["--upstream", api.url, "--models", models] : [];
  const demo = spawn(process.env.DEMO, ["--json", ...behind], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: demo.stdout });
  const [line] = await once(lines, "line", { signal: AbortSignal.timeout(START_MS) });
  const { base_url, token_endpoint, receive_endpoint } = JSON.parse(line);
  return {
    api,
    baseUrl: base_url,
    host: base_url.replace(/\/v1$/, ""),
    /** A fresh token of this value. */
    token: async (sats) => (await fetch(`${token_endpoint}?sats=${sats}`)).text(),
    /** Redeems a token at the mint. Returns what it was worth, in sat. */
    receive: async (token) => Number(await (await fetch(receive_endpoint, { method: "POST", body: token })).text()),
    /** What the node says about a key's balance. */
    info: async (key) =>
      (await fetch(`${base_url}/wallet/info`, { headers: { authorization: `Bearer ${key}` } })).json(),
    /** Takes back what is left on a key, as a token. */
    refund: async (key) =>
      (await fetch(`${base_url}/wallet/refund`, { method: "POST", headers: { authorization: `Bearer ${key}` } })).json(),
    /** It stays up until its standard input ends; then it proves its books. */
    stop: async () => {
      demo.stdin.end();
      const [code] = await once(demo, "exit");
      api?.stop();
      assert.equal(code, 0, "the demo says why");
    },
  };
}

/** The charge for one answer of the upstream's, in msat: as the README has it, rounded up once. */
export function price(model) {
  const usage = upstream.USAGE[model === CODEX ? "responses" : "messages"];
  // In 10⁻⁹ USD, so that the arithmetic is exact.
  const nano =
    model === CODEX
      ? (usage.input_tokens - usage.input_tokens_details.cached_tokens) * 1250 +
        usage.input_tokens_details.cached_tokens * 125 +
        usage.output_tokens * 10000
      : usage.input_tokens * 3000 +
        usage.cache_read_input_tokens * 300 +
        usage.cache_creation_input_tokens * 3750 +
        usage.output_tokens * 15000;
  // × 1.005 × 1.05 × 10¹¹ msat ÷ 100000 USD, of 10⁻⁹ USD each.
  return Number((BigInt(nano) * 105525n + 99_999_999n) / 100_000_000n);
}
