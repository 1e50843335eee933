// An API that plays one scene for an agent: it asks for a tool to be used, and when the tool's result
// has come back, says that all is done. It speaks OpenAI's Responses and chat and Anthropic's Messages,
// streaming and not, as their documentation describes them.

import http from "node:http";
import { once } from "node:events";

/** What the answers report, so that a bill can be checked to the msat. */
export const USAGE = {
  chat: { prompt_tokens: 1000, prompt_tokens_details: { cached_tokens: 600 }, completion_tokens: 50, completion_tokens_details: { reasoning_tokens: 20 }, total_tokens: 1050 },
  responses: { input_tokens: 1000, input_tokens_details: { cached_tokens: 600 }, output_tokens: 50, output_tokens_details: { reasoning_tokens: 20 }, total_tokens: 1050 },
  messages: { input_tokens: 400, cache_read_input_tokens: 600, cache_creation_input_tokens: 100, output_tokens: 50 },
};

export const DONE = "The file is written.";

/** Starts it. `tools` says how each protocol's agent writes a file. */
export async function start(tools) {
  const seen = [];
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const path = new URL(request.url, "http://upstream").pathname;
    const body = text ? JSON.parse(text) : null;
    seen.push({ method: request.method, path, headers: request.headers, body, text });
    const play = { "/v1/responses": responses, "/v1/chat/completions": chat, "/v1/messages": messages }[path];
    if (!play || request.method !== "POST") {
      response.writeHead(404, { "content-type": "application/json" });
      return response.end(JSON.stringify({ error: { message: "no such route", type: "invalid_request_error" } }));
    }
    play(body, response, tools);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}/v1`, seen, stop: () => server.closeAllConnections() ?? server.close() };
}

function events(response, list) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const event of list) response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  response.end();
}

function json(response, body) {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function responses(body, response, tools) {
  const used = JSON.stringify(body.input).includes("_call_output");
  const tool = !used && tools.responses(body);
  const item = tool
    ? { type: "function_call", id: "fc_1", call_id: "call_1", name: tool.name, arguments: JSON.stringify(tool.input), status: "completed" }
    : { type: "message", id: "msg_1", role: "assistant", status: "completed", content: [{ type: "output_text", text: DONE, annotations: [] }] };
  const base = { id: "resp_1", object: "response", created_at: 1, model: body.model, output: [], parallel_tool_calls: true, tool_choice: "auto", tools: [] };
  const done = { ...base, status: "completed", output: [item], usage: USAGE.responses };
  if (!body.stream) return json(response, done);
  const list = [{ type: "response.created", response: { ...base, status: "in_progress" } }];
  list.push({ type: "response.output_item.added", output_index: 0, item: { ...item, status: "in_progress", ...(tool ? { arguments: "" } : { content: [] }) } });
  if (tool) {
    list.push({ type: "response.function_call_arguments.delta", item_id: "fc_1", output_index: 0, delta: item.arguments });
    list.push({ type: "response.function_call_arguments.done", item_id: "fc_1", output_index: 0, arguments: item.arguments });
  } else {
    list.push({ type: "response.content_part.added", item_id: "msg_1", output_index: 0, content_index: 0, part: { type: "output_text", text: "", annotations: [] } });
    for (const delta of DONE.match(/.{1,8}/g)) list.push({ type: "response.output_text.delta", item_id: "msg_1", output_index: 0, content_index: 0, delta });
    list.push({ type: "response.output_text.done", item_id: "msg_1", output_index: 0, content_index: 0, text: DONE });
    list.push({ type: "response.content_part.done", item_id: "msg_1", output_index: 0, content_index: 0, part: item.content[0] });
  }
  list.push({ type: "response.output_item.done", output_index: 0, item });
  list.push({ type: "response.completed", response: done });
  events(response, list.map((event, sequence_number) => ({ ...event, sequence_number })));
}

function chat(body, response, tools) {
  const used = body.messages.some((message) => message.role === "tool");
  const tool = !used && (body.tools ?? []).length > 0 && tools.chat(body);
  const text = tool && JSON.stringify(tool.input);
  const call = (args) => ({ id: "call_1", type: "function", function: { name: tool.name, arguments: args } });
  const finish_reason = tool ? "tool_calls" : "stop";
  const base = { id: "chatcmpl-1", created: 1, model: body.model };
  if (!body.stream) {
    const message = tool ? { role: "assistant", content: null, tool_calls: [call(text)] } : { role: "assistant", content: DONE };
    const choices = [{ index: 0, message, finish_reason }];
    return json(response, { ...base, object: "chat.completion", choices, usage: USAGE.chat });
  }
  const chunk = (delta, more = {}) => ({ ...base, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: null, ...more }] });
  const list = [chunk({ role: "assistant", content: "" })];
  if (tool) {
    list.push(chunk({ tool_calls: [{ index: 0, ...call("") }] }));
    for (const part of text.match(/.{1,8}/gs)) list.push(chunk({ tool_calls: [{ index: 0, function: { arguments: part } }] }));
  } else {
    for (const content of DONE.match(/.{1,8}/g)) list.push(chunk({ content }));
  }
  list.push(chunk({}, { finish_reason }));
  if (body.stream_options?.include_usage) list.push({ ...base, object: "chat.completion.chunk", choices: [], usage: USAGE.chat });
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const one of list) response.write(`data: ${JSON.stringify(one)}\n\n`);
  response.end("data: [DONE]\n\n");
}

function messages(body, response, tools) {
  const used = JSON.stringify(body.messages).includes('"tool_result"');
  const tool = !used && (body.tools ?? []).length > 0 && tools.messages(body);
  const block = tool
    ? { type: "tool_use", id: "toolu_1", name: tool.name, input: tool.input }
    : { type: "text", text: DONE };
  const message = {
    id: "msg_1", type: "message", role: "assistant", model: body.model, content: [block],
    stop_reason: tool ? "tool_use" : "end_turn", stop_sequence: null, usage: USAGE.messages,
  };
  if (!body.stream) return json(response, message);
  const list = [{ type: "message_start", message: { ...message, content: [], stop_reason: null, usage: { ...USAGE.messages, output_tokens: 1 } } }];
  list.push({ type: "content_block_start", index: 0, content_block: tool ? { ...block, input: {} } : { type: "text", text: "" } });
  list.push({ type: "ping" });
  if (tool) {
    list.push({ type: "content_block_delta", index: 0, delta: { type: "input_json_delta", partial_json: JSON.stringify(tool.input) } });
  } else {
    for (const text of DONE.match(/.{1,8}/g)) list.push({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } });
  }
  list.push({ type: "content_block_stop", index: 0 });
  list.push({ type: "message_delta", delta: { stop_reason: message.stop_reason, stop_sequence: null }, usage: { output_tokens: USAGE.messages.output_tokens } });
  list.push({ type: "message_stop" });
  events(response, list);
}
