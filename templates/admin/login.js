// Logs in with a browser's Nostr extension (NIP-07): it signs this page's address (NIP-98), and the form takes the
// event along. The key stays in the extension.
"use strict";

const form = document.getElementById("sign");
const said = document.getElementById("said");

form.hidden = false;
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  said.hidden = true;
  try {
    if (!window.nostr) throw new Error("This browser has no Nostr extension.");
    const signed = await window.nostr.signEvent({
      kind: 27235,
      created_at: Math.floor(Date.now() / 1000),
      tags: [["u", form.action], ["method", "POST"]],
      content: "",
    });
    const bytes = new TextEncoder().encode(JSON.stringify(signed));
    form.elements.event.value = btoa(String.fromCharCode(...bytes));
    form.submit();
  } catch (error) {
    said.textContent = error instanceof Error ? error.message : "The event was not signed.";
    said.hidden = false;
  }
});
