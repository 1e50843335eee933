// Coding agents, as they come from npm, do a task through a node that they pay with a token.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { DONE } from "./upstream.mjs";
import { CLAUDE, CODEX, price, start } from "./world.mjs";

const TASK = "Write the word 'written' into the file proof.txt.";
const SATS = 2000;
const LIMIT_MS = 90_000;

let world;
let folder;

before(async () => {
  world = await start({
    responses: () => ({ name: "exec_command", input: { cmd: "echo written > proof.txt" } }),
    messages: () => ({ name: "Write", input: { file_path: path.join(folder, "proof.txt"), content: "written\n" } }),
  });
});

after(() => world.stop());

/** Runs an agent in a folder of its own. Returns what it said. */
async function run(name, args, env) {
  const child = spawn(path.join(process.env.CLIS, name), args, {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: LIMIT_MS,
  });
  let said = "";
  child.stdout.on("data", (data) => (said += data));
  child.stderr.on("data", (data) => (said += data));
  const [code] = await once(child, "close");
  assert.equal(code, 0, said);
  return said;
}

function fresh() {
  folder = fs.mkdtempSync(path.join(process.env.HOME, "agent-"));
  world.api.seen.length = 0;
}

/** The file is there, the bill is that of these answers, and what is left comes back. */
async function proven(key, said, model, requests) {
  assert.ok(said.includes(DONE), said);
  assert.equal(fs.readFileSync(path.join(folder, "proof.txt"), "utf8"), "written\n");
  const { balance, total_requests: served } = await world.info(key);
  assert.equal(world.api.seen.length, requests);
  assert.equal(served, requests);
  assert.equal(balance, SATS * 1000 - requests * price(model));
  for (const one of world.api.seen) {
    assert.ok(!JSON.stringify(one).includes(key), "the token stays here");
    assert.match(one.headers["user-agent"], /^coinslot\//, "and so does what the client is");
  }
  const { token } = await world.refund(key);
  assert.equal(await world.receive(token), Math.floor(balance / 1000));
}

test("Codex does a task", async () => {
  fresh();
  const key = await world.token(SATS);
  fs.mkdirSync(path.join(folder, ".codex"));
  // As the README shows it.
  const config = [
    `model = "${CODEX}"`,
    `model_provider = "coinslot"`,
    `web_search = "disabled"`,
    `[model_providers.coinslot]`,
    `name = "coinslot"`,
    `base_url = "${world.baseUrl}"`,
    `env_key = "COINSLOT_TOKEN"`,
    `wire_api = "responses"`,
  ];
  fs.writeFileSync(path.join(folder, ".codex", "config.toml"), config.join("\n"));
  const args = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK];
  const said = await run("codex", args, { COINSLOT_TOKEN: key });
  await proven(key, said, CODEX, 2);
});

test("Claude Code does a task", async () => {
  fresh();
  const key = await world.token(SATS);
  // As the README shows it.
  const env = { ANTHROPIC_BASE_URL: world.host, ANTHROPIC_AUTH_TOKEN: key, ANTHROPIC_MODEL: CLAUDE };
  const quiet = { CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1" };
  const said = await run("claude", ["-p", TASK, "--allowedTools", "Write"], { ...env, ...quiet });
  await proven(key, said, CLAUDE, 2);
  const [first] = world.api.seen;
  assert.ok(first.headers["anthropic-beta"]?.includes("context-management"), "what the request depends on goes along");
  assert.equal(first.headers["x-claude-code-session-id"], undefined, "and nothing else does");
});
