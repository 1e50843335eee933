// Every endpoint of the official SDKs for JavaScript, whole and streamed: their own accumulators get the text and
// the usage that the upstream sent, and what an answer says that it cost is what is gone from the key.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { toFile } from "openai";

import { start } from "./world.mjs";

/** The demo's model that has a price for everything. */
const RICH = "toy/rich";
const QUESTION = "Say something worth a few satoshi. ";
const LONG = QUESTION.repeat(10);
const messages = [{ role: "user", content: QUESTION }];

let world;
let key;
let openai;
let anthropic;

before(async () => {
  world = await start();
});

after(() => world.stop());

beforeEach(async () => {
  key = await world.token(1000);
  openai = new OpenAI({ apiKey: key, baseURL: world.baseUrl, maxRetries: 0 });
  anthropic = new Anthropic({ apiKey: key, authToken: null, baseURL: world.host, maxRetries: 0 });
  await world.info(key);
});

/** Sees to it that these answers cost what they say, together. */
async function costs(...answers) {
  const told = answers.map((answer) => answer.cost.total_msats);
  assert.ok(told.every((msat) => msat > 0), `${told}`);
  assert.equal(1_000_000 - (await world.info(key)).balance, told.reduce((sum, msat) => sum + msat));
}

async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

test("Responses", async () => {
  const ask = { model: RICH, input: QUESTION, max_output_tokens: 100 };
  const whole = await openai.responses.create(ask);
  const streamed = await openai.responses.stream(ask).finalResponse();
  for (const said of [whole, streamed]) {
    assert.deepEqual([said.output_text, said.model], ["echo", RICH]);
    assert.deepEqual([said.usage.input_tokens, said.usage.output_tokens], [100, 50]);
  }
  await costs(whole, streamed);
});

test("Chat", async () => {
  const ask = { model: RICH, messages, max_tokens: 100 };
  const whole = await openai.chat.completions.create(ask);
  const stream_options = { include_usage: true };
  const streamed = await openai.chat.completions.stream({ ...ask, stream_options }).finalChatCompletion();
  for (const said of [whole, streamed]) {
    assert.equal(said.choices[0].message.content, `echo: ${QUESTION}`);
    assert.deepEqual([said.model, said.usage.prompt_tokens, said.usage.completion_tokens], [RICH, 100, 50]);
  }
  // Its accumulator keeps the usage, and nothing else that it does not know.
  await costs(whole, streamed.usage);
});

test("Completions", async () => {
  const ask = { model: RICH, prompt: "once upon", max_tokens: 100 };
  const whole = await openai.completions.create(ask);
  assert.deepEqual([whole.choices[0].text, whole.usage.completion_tokens], ["echo", 50]);
  const chunks = await all(openai.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.text)).join(""), "echo");
  assert.equal(chunks.at(-1).usage.completion_tokens, 50);
  await costs(whole, chunks.at(-1));
});

test("Embeddings, which the SDK asks for in base64 and decodes", async () => {
  const one = await openai.embeddings.create({ model: RICH, input: LONG });
  const floats = await openai.embeddings.create({ model: RICH, input: [LONG, LONG], encoding_format: "float" });
  const packed = await openai.embeddings.create({ model: RICH, input: LONG, encoding_format: "base64" });
  assert.deepEqual([[...one.data[0].embedding], floats.data[1].embedding], [[1, -2], [1, -2]]);
  assert.equal(typeof packed.data[0].embedding, "string");
  await costs(one, floats, packed);
});

test("Images", async () => {
  const ask = { model: RICH, prompt: LONG, size: "1024x1024", quality: "low" };
  const image = await toFile(Buffer.from("picture"), "a.png", { type: "image/png" });
  const made = await openai.images.generate(ask);
  const edited = await openai.images.edit({ ...ask, image });
  const varied = await openai.images.createVariation({ model: RICH, image, size: "1024x1024" });
  for (const picture of [made, edited, varied]) assert.equal(picture.data[0].b64_json, "AAAA");
  assert.deepEqual([made.usage.input_tokens, made.usage.output_tokens], [100, 50]);
  const events = await all(openai.images.generate({ ...ask, stream: true, partial_images: 1 }));
  assert.deepEqual(events.map((event) => event.type), ["image_generation.partial_image", "image_generation.completed"]);
  await costs(made, edited, varied, events.at(-1));
});

test("Audio", async () => {
  const file = await toFile(Buffer.alloc(10_000, "x"), "a.mp3");
  const spoken = await openai.audio.speech.create({ model: RICH, voice: "alloy", input: QUESTION });
  assert.equal(await spoken.text(), "sound");
  const written = await openai.audio.transcriptions.create({ model: RICH, file });
  const translated = await openai.audio.translations.create({ model: RICH, file });
  assert.deepEqual([written.text, translated.text], ["echo", "echo"]);
  const speech = { cost: { total_msats: Number(spoken.headers.get("x-routstr-cost-msats")) } };
  await costs(speech, written, translated);
});

test("Moderations", async () => {
  const judged = await openai.moderations.create({ model: RICH, input: QUESTION });
  assert.equal(judged.results[0].flagged, false);
  assert.equal((await world.info(key)).balance, 999_999, "the least that a request costs");
});

test("Models", async () => {
  const ids = (await all(openai.models.list())).map((model) => model.id);
  assert.ok(ids.includes(RICH));
  assert.equal((await openai.models.retrieve(RICH)).id, RICH);
  const listed = (await all(anthropic.models.list())).find((model) => model.id === RICH);
  assert.equal(listed.type, "model");
  assert.equal((await anthropic.models.retrieve("rich")).id, RICH);
});

test("Messages, and the counting of their tokens", async () => {
  const ask = { model: RICH, max_tokens: 100, messages };
  const whole = await anthropic.messages.create(ask);
  const events = [];
  const streamed = anthropic.messages.stream(ask).on("streamEvent", (event) => events.push(event));
  for (const said of [whole, await streamed.finalMessage()]) {
    assert.deepEqual([said.content[0].text, said.model, said.stop_reason], ["echo", RICH, "end_turn"]);
    assert.deepEqual([said.usage.input_tokens, said.usage.output_tokens], [100, 50]);
  }
  assert.equal((await anthropic.messages.countTokens({ model: RICH, messages })).input_tokens, 42);
  const counted = { cost: { total_msats: 1 } };
  await costs(whole, events.find((event) => event.type === "message_delta"), counted);
});

test("What lies in the operator's account is refused", async () => {
  await assert.rejects(openai.files.list(), (error) => error instanceof OpenAI.NotFoundError && error.code === "unsupported_path");
  await assert.rejects(openai.responses.retrieve("resp_1"), (error) => error instanceof OpenAI.NotFoundError);
});
