// The operator's side in a real browser: log in, look at everything, do what has to be done.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { checkAccess, launch, open, picture, startDemo } from "./world.mjs";

const VIEWS = [
  { name: "phone-light", width: 360, scheme: "light" },
  { name: "phone-dark", width: 360, scheme: "dark" },
  { name: "desk-light", width: 1600, scheme: "light" },
  { name: "desk-dark", width: 1600, scheme: "dark" },
];

let world;
let browser;

before(async () => {
  world = await startDemo();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await world?.end();
});

async function logIn(page) {
  await page.goto(`${world.origin}/admin`);
  await page.getByLabel("Operator’s password").fill(world.admin_password);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
}

for (const view of VIEWS) {
  test(`every page can be read by everybody: ${view.name}`, async () => {
    const { page, check, close } = await open(browser, world, { ...view, script: true, cookies: true });
    await world.ask(await world.token(300), "hello");
    await page.goto(`${world.origin}/admin/login`);
    await checkAccess(page);
    await picture(page, `admin-login-${view.name}`);
    await logIn(page);
    const pages = page.getByRole("navigation", { name: "Pages" }).getByRole("link");
    const addresses = await pages.evaluateAll((links) => links.map((link) => link.getAttribute("href")));
    assert.ok(addresses.length > 5);
    for (const address of addresses) {
      await page.goto(`${world.origin}${address}`);
      await page.locator("nav [aria-current=page]").waitFor();
      await checkAccess(page);
      await check();
      const name = address === "/admin" ? "overview" : address.split("/").at(-1);
      await picture(page, `admin-${name}-${view.name}`, { fullPage: true });
    }
    // One of each that a list leads to.
    for (const [list, name, part] of [
      ["keys", "key", "Terms"],
      ["requests", "request", "Payment"],
      ["models", "model", "Further names"],
    ]) {
      await page.goto(`${world.origin}/admin/${list}`);
      await page.locator("main td a, main th a").first().click();
      await page.getByRole("heading", { name: part, exact: true }).waitFor();
      await checkAccess(page);
      await check();
      await picture(page, `admin-${name}-${view.name}`, { fullPage: true });
    }
    await close();
  });
}

test("an operator's day", async () => {
  const { page, check, close } = await open(browser, world, { ...VIEWS[2], script: true, cookies: true });
  const key = await world.token(2_000);
  for (let n = 0; n < 12; n += 1) await world.ask(key, `question ${n}`);
  await logIn(page);

  // A request comes in while the overview is open, and is told of by the one script.
  await world.ask(key, "now");
  await page.getByText(world.model).first().waitFor();
  await check();

  // A paid request is found, and told.
  await page.getByRole("link", { name: "Requests", exact: true }).click();
  await page.getByLabel("Model, as the client called it").fill(world.model);
  await page.getByLabel("Status").fill("charged");
  await page.getByRole("button", { name: "Find" }).click();
  await page.getByRole("region", { name: "Requests", exact: true }).getByRole("link").first().click();
  await page.getByText("Settlement").first().waitFor();
  assert.doesNotMatch(await page.content(), /question/);
  await checkAccess(page);
  await check();

  // Earnings are taken out as ecash, which is good at the mint.
  await page.goto(`${world.origin}/admin/wallet`);
  await page.getByLabel("Amount, in sat (empty for an invoice)").fill("10");
  await page.getByRole("button", { name: "Take out" }).click();
  await page.getByRole("img", { name: /QR/ }).waitFor();
  const text = await page.locator("main").innerText();
  const token = text.match(/cashu[AB][A-Za-z0-9_=-]+/)[0];
  await picture(page, "admin-withdrawn-desk-light", { fullPage: true });
  assert.equal(await world.receive(token), 10);
  await check();

  // An upstream is added beside the running one, and asked one question.
  await page.goto(`${world.origin}/admin/upstreams`);
  await page.getByLabel("Name, for you alone").fill("second");
  await page.getByLabel("Address (empty: that of the kind)").fill("http://127.0.0.1:9/v1");
  await page.getByLabel("Key", { exact: true }).fill("sk-nothing");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("rowheader", { name: "second" }).waitFor();
  assert.doesNotMatch(await page.content(), /sk-nothing/);
  await check();

  // One model gets a price of the operator's, and another name.
  await page.goto(`${world.origin}/admin/models`);
  await page.getByRole("region", { name: "Models and prices" }).getByRole("link").first().click();
  await page.getByLabel("Your price: completion").fill("30");
  await page.getByLabel("Yours, one to a line").fill("a-name-of-mine");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.locator('td:text-is("30")').waitFor();
  assert.equal(await page.getByLabel("Your price: completion").inputValue(), "30");
  await checkAccess(page);
  await check();

  // A voucher is issued; its code is shown once.
  await page.goto(`${world.origin}/admin/vouchers`);
  await page.getByLabel("Worth of each, in sat").fill("5");
  await page.getByRole("button", { name: "Issue" }).click();
  await page.locator(".codes li").first().waitFor();
  await check();

  // The mint stops, and the operator is told so.
  const fresh = await world.token(50);
  await world.mint("stop");
  const unpaid = await fetch(`${world.base_url}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${fresh}`, "content-type": "application/json" },
    body: JSON.stringify({ model: world.model, messages: [{ role: "user", content: "hello" }] }),
  });
  assert.equal(unpaid.ok, false);
  for (let tries = 0; ; tries += 1) {
    await page.goto(`${world.origin}/admin/wallet`);
    const state = await page.getByRole("region", { name: "Ecash by mint" }).innerText();
    if (/left alone|fail|not asked|reach/i.test(state)) break;
    assert.ok(tries < 50, state);
    await page.waitForTimeout(200);
  }
  await page.goto(`${world.origin}/admin`);
  await page.getByText(world.mint_url).first().waitFor();
  await picture(page, "admin-mint-down-desk-light", { fullPage: true });
  await world.mint("start");
  await close();
});
