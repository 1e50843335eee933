// The official SDKs for JavaScript: their own accumulators give what the upstream sent.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { DONE, USAGE } from "./upstream.mjs";
import { CLAUDE, CODEX, price, start } from "./world.mjs";

const TOOL = { name: "write", input: { path: "proof.txt", text: "écrit \"written\"\n" } };

let world;
/** Whether the next answers call a tool. */
let calls = false;

before(async () => {
  world = await start({ responses: () => calls && TOOL, chat: () => calls && TOOL, messages: () => calls && TOOL });
});

after(() => world.stop());

const openai = (apiKey) => new OpenAI({ apiKey, baseURL: world.baseUrl, maxRetries: 0 });
const anthropic = (apiKey) => new Anthropic({ apiKey, authToken: null, baseURL: world.host, maxRetries: 0 });

/** Sees to it that a call costs exactly this. */
async function costs(key, msat, call) {
  const before = (await world.info(key)).balance;
  const answer = await call();
  assert.equal(before - (await world.info(key)).balance, msat);
  return answer;
}

async function opened(model) {
  const key = await world.token(2000);
  assert.equal((await world.info(key)).balance, 2_000_000, model);
  return key;
}

for (const stream of [false, true]) {
  const how = stream ? "streamed" : "whole";

  test(`Responses, ${how}`, async () => {
    const key = await opened(CODEX);
    const client = openai(key);
    const ask = { model: CODEX, input: "Write it." };
    const respond = async () =>
      stream ? client.responses.stream(ask).finalResponse() : client.responses.create(ask);
    calls = false;
    const said = await costs(key, price(CODEX), respond);
    assert.equal(said.output_text, DONE);
    assert.equal(said.model, CODEX);
    for (const [name, value] of Object.entries(USAGE.responses)) assert.deepEqual(said.usage[name], value, name);
    calls = true;
    const tool = (await costs(key, price(CODEX), respond)).output[0];
    assert.deepEqual([tool.type, tool.name, JSON.parse(tool.arguments)], ["function_call", TOOL.name, TOOL.input]);
  });

  test(`Chat, ${how}`, async () => {
    const key = await opened(CODEX);
    const client = openai(key);
    const tools = [{ type: "function", function: { name: TOOL.name, parameters: { type: "object" } } }];
    const ask = { model: CODEX, tools, messages: [{ role: "user", content: "Write it." }] };
    const options = { stream_options: { include_usage: true } };
    const respond = async () =>
      stream
        ? client.chat.completions.stream({ ...ask, ...options }).finalChatCompletion()
        : client.chat.completions.create(ask);
    calls = false;
    const said = await costs(key, price(CODEX), respond);
    assert.deepEqual([said.choices[0].message.content, said.choices[0].finish_reason, said.model], [DONE, "stop", CODEX]);
    for (const [name, value] of Object.entries(USAGE.chat)) assert.deepEqual(said.usage[name], value, name);
    calls = true;
    const [choice] = (await costs(key, price(CODEX), respond)).choices;
    const [{ function: tool }] = choice.message.tool_calls;
    assert.deepEqual([choice.finish_reason, tool.name, JSON.parse(tool.arguments)], ["tool_calls", TOOL.name, TOOL.input]);
  });

  test(`Messages, ${how}`, async () => {
    const key = await opened(CLAUDE);
    const client = anthropic(key);
    const tools = [{ name: TOOL.name, input_schema: { type: "object" } }];
    const ask = { model: CLAUDE, max_tokens: 1000, tools, messages: [{ role: "user", content: "Write it." }] };
    const respond = async () =>
      stream ? client.messages.stream(ask).finalMessage() : client.messages.create(ask);
    calls = false;
    const said = await costs(key, price(CLAUDE), respond);
    assert.deepEqual(said.content.map((block) => block.text), [DONE]);
    assert.deepEqual([said.model, said.stop_reason], [CLAUDE, "end_turn"]);
    for (const [name, value] of Object.entries(USAGE.messages)) assert.equal(said.usage[name], value, name);
    calls = true;
    const [tool] = (await costs(key, price(CLAUDE), respond)).content;
    assert.deepEqual([tool.type, tool.name, tool.input], ["tool_use", TOOL.name, TOOL.input]);
  });
}

test("Errors are those of each SDK", async () => {
  const small = await world.token(1);
  await assert.rejects(
    openai(small).responses.create({ model: CODEX, input: "Write it." }),
    (error) => error instanceof OpenAI.APIError && error.status === 402 && error.code === "insufficient_balance",
  );
  await assert.rejects(
    anthropic(small).messages.create({ model: CLAUDE, max_tokens: 10_000, messages: [{ role: "user", content: "?" }] }),
    (error) => error instanceof Anthropic.APIError && error.status === 402 && error.error.type === "error",
  );
  const key = await opened(CODEX);
  await assert.rejects(
    openai(key).responses.create({ model: CODEX, input: "?", previous_response_id: "resp_0" }),
    (error) => error instanceof OpenAI.BadRequestError,
  );
  await assert.rejects(
    anthropic(key).messages.create({ model: "nothing", max_tokens: 1, messages: [{ role: "user", content: "?" }] }),
    (error) => error instanceof Anthropic.APIError && error.error.type === "error",
  );
  assert.equal((await world.info(key)).balance, 2_000_000, "they cost nothing");
});
