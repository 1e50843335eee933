// Shows requests as they happen. Without it the page is whole.
"use strict";
(() => {
  const MOST = 50;
  const section = document.getElementById("live");
  const state = document.getElementById("live-state");
  const body = document.getElementById("live-rows");
  if (!section || !state || !body || !window.EventSource) return;

  const rows = new Map();
  const number = (value) => (value === undefined || value === null ? "–" : String(value));

  function rowOf(news) {
    const known = rows.get(news.id);
    if (known) return known;
    const row = document.createElement("tr");
    const cells = {};
    for (const name of ["time", "id", "model", "upstream", "status", "charged", "first", "took", "key"]) {
      const cell = document.createElement("td");
      if (name === "charged" || name === "first" || name === "took") cell.className = "number";
      cells[name] = row.appendChild(cell);
    }
    const link = cells.id.appendChild(document.createElement("a"));
    link.href = "/admin/requests?id=" + encodeURIComponent(news.id);
    link.textContent = news.id;
    cells.time.textContent = new Date(news.at_ms).toISOString().slice(11, 19);
    body.prepend(row);
    rows.set(news.id, cells);
    if (rows.size > MOST) {
      rows.delete(rows.keys().next().value);
      body.lastElementChild.remove();
    }
    return cells;
  }

  const source = new EventSource("/admin/events");
  source.addEventListener("ready", () => {
    section.hidden = false;
    state.textContent = "connected; times are UTC";
  });
  source.addEventListener("resync", (event) => {
    state.textContent = event.data + " pieces of news were missed: reload for the figures";
  });
  source.addEventListener("request", (event) => {
    const news = JSON.parse(event.data);
    const cells = rowOf(news);
    cells.model.textContent = news.model;
    cells.upstream.textContent = news.upstream;
    cells.key.textContent = news.key;
    cells.status.textContent = news.event === "start" ? "running" : news.event === "attempt" ? "asked: " + news.status : news.status;
    cells.charged.textContent = number(news.charged_msat);
    cells.first.textContent = number(news.first_ms);
    cells.took.textContent = number(news.took_ms);
  });
  source.addEventListener("error", () => {
    state.textContent = "disconnected; connecting again";
  });
})();
