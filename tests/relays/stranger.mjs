// What others do at a relay, with a library that shares no code with ours.
//
//   node stranger.mjs read  <relay> <public key>   prints the listing of that key, verified
//   node stranger.mjs write <relay> <url>          publishes a listing of a new key, and prints it
import { finalizeEvent, generateSecretKey, verifyEvent } from "nostr-tools/pure";
import { Relay, useWebSocketImplementation } from "nostr-tools/relay";
import WebSocket from "ws";

useWebSocketImplementation(WebSocket);
const [verb, url, what] = process.argv.slice(2);
const relay = await Relay.connect(url);

function stored(filter) {
  return new Promise((resolve) => {
    const events = [];
    relay.subscribe([filter], { onevent: (event) => events.push(event), oneose: () => resolve(events) });
  });
}

if (verb === "read") {
  const events = await stored({ kinds: [38421], authors: [what] });
  if (events.length !== 1) throw new Error(`${events.length} listings, not one`);
  // A copy, because the library remembers what it has verified.
  const event = JSON.parse(JSON.stringify(events[0]));
  if (!verifyEvent(event)) throw new Error("the signature does not hold");
  console.log(JSON.stringify(event));
} else {
  const tags = [["d", "stranger"], ["u", what], ["mint", "https://mint.example.com"], ["version", "0.4.8"]];
  const content = JSON.stringify({ name: "a stranger", about: "from another library" });
  const created_at = Math.floor(Date.now() / 1000);
  const event = finalizeEvent({ kind: 38421, created_at, tags, content }, generateSecretKey());
  await relay.publish(event);
  console.log(JSON.stringify(event));
}
relay.close();
process.exit(0);
