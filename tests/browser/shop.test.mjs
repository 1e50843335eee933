// The shop window in a real browser: everything that a visitor can do, without JavaScript.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { checkAccess, launch, open, picture, startDemo } from "./world.mjs";

/** Beside the first page, which is pictured in all of them. */
const PICTURED = ["phone-dark", "desk-light"];

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

const models = (page) => page.locator("table.prices code.id").allTextContents();

for (const view of VIEWS) {
  describe(view.name, () => {
    test("prices are searched and sorted", async () => {
      const { page, check, close } = await open(browser, world, view);
      await page.goto(world.origin);
      await page.getByText("Open: requests are served and paid now.").waitFor();
      await check();
      await picture(page, `home-${view.name}`);
      const all = await models(page);
      assert.ok(all.includes(world.model));

      await page.getByLabel("Search").fill("echo");
      await page.getByLabel("Search").press("Enter");
      assert.deepEqual(await models(page), [world.model]);
      assert.match(page.url(), /q=echo/);
      await check();

      await page.goto(world.origin);
      await page.getByLabel("Sort by").selectOption({ label: "Name" });
      await page.getByRole("button", { name: "Show" }).click();
      assert.deepEqual(await models(page), [...all].sort());
      if (view.width > 600) {
        await page.getByRole("link", { name: "Model", exact: true }).click();
        assert.deepEqual(await models(page), [...all].sort().reverse());
      }
      await check();
      await close();
    });

    test("a token is put on a key, spent and taken back", async () => {
      const { page, check, close } = await open(browser, world, view);
      const token = await world.token(500);
      await page.goto(world.origin);
      await page.getByLabel("Key (sk-…) or token").fill(token);
      await page.getByRole("button", { name: "Look" }).click();
      await page.getByRole("heading", { name: "This token is new here" }).waitFor();
      await check();
      await page.getByRole("button", { name: "Put it on a key" }).click();
      await page.getByText("The token is a key now.").waitFor();
      await check();

      // Each costs 2000 msat at list price, and 2111 with the fees.
      await world.ask(token, "a private question");
      await world.ask(token, "and another");
      await page.getByRole("button", { name: "Look again" }).click();
      await page.getByText("495.778").first().waitFor();
      await page.locator("details[name=request] summary").first().click();
      await page.getByText("100 × 0.00001 USD").first().waitFor();
      await page.getByText("Show the key").click();
      assert.doesNotMatch(await page.content(), /private/);
      await check();
      if (PICTURED.includes(view.name)) await picture(page, `key-${view.name}`, { fullPage: true });

      await page.getByRole("button", { name: "Refund to ecash" }).click();
      await page.getByRole("heading", { name: "Your ecash" }).waitFor();
      // A token of many coins is too long for a code; then the page says so.
      const code = page.getByRole("img", { name: "QR code of the token" });
      await code.or(page.getByText("too long for a QR code")).waitFor();
      await check();
      if (PICTURED.includes(view.name)) await picture(page, `refund-${view.name}`, { fullPage: true });
      assert.equal(await world.receive(await page.locator("#token").innerText()), 495);
      await page.getByRole("button", { name: "Back to the key" }).click();
      await page.getByText("−495.000").waitFor();
      await check();
      await close();
    });

    test("a key is bought and topped up over Lightning", async () => {
      const { page, check, close } = await open(browser, world, view);
      await page.goto(world.origin);
      await page.getByLabel("Amount in sat").fill("500");
      await page.getByRole("button", { name: "Make an invoice" }).click();
      await page.getByRole("img", { name: "QR code of the invoice" }).waitFor();
      if (PICTURED.includes(view.name)) await picture(page, `invoice-${view.name}`, { fullPage: true });
      // The demo's invoices pay themselves; the frame finds out by itself.
      await page.frameLocator("iframe").getByText("Paid. Go on").waitFor({ timeout: 20_000 });
      await check();
      await page.getByRole("button", { name: "I have paid" }).click();
      await page.getByText("This is your key").waitFor();
      await page.getByText("500.000").first().waitFor();
      await check();

      await page.getByLabel("Amount in sat").fill("20");
      await page.getByRole("button", { name: "Make an invoice" }).click();
      await page.frameLocator("iframe").getByText("Paid. Go on").waitFor({ timeout: 20_000 });
      await page.getByRole("button", { name: "Back to the key" }).click();
      await page.getByText("520.000").first().waitFor();
      await check();
      await close();
    });

    test("what is wrong is said", async () => {
      const { page, check, close } = await open(browser, world, view);
      await page.goto(world.origin);
      await page.getByLabel("Key (sk-…) or token").fill("<script>alert(1)</script>");
      await page.getByRole("button", { name: "Look" }).click();
      await page.getByRole("heading", { name: "That did not work" }).waitFor();
      await page.getByText("Nothing was taken.").waitFor();
      await check();
      await close();
    });

    test("the documents are read", async () => {
      const { page, check, close } = await open(browser, world, { ...view, script: true });
      await page.goto(world.origin);
      await page.getByRole("link", { name: "Docs" }).click();
      await page.getByRole("heading", { name: "How to use" }).waitFor();
      await checkAccess(page);
      await page.getByRole("link", { name: "How to pay" }).last().click();
      await page.getByRole("heading", { name: "How to pay", exact: true }).waitFor();
      assert.ok((await page.locator("pre").first().innerText()).includes(`${world.origin}/v1/chat/completions`));
      await checkAccess(page);
      await check();
      if (PICTURED.includes(view.name)) await picture(page, `docs-${view.name}`);
      const contents = page.getByRole("navigation", { name: "Documents" });
      const titles = await contents.locator("> ul > li > a").allTextContents();
      for (const title of titles) {
        await contents.getByRole("link", { name: title, exact: true }).first().click();
        await page.getByRole("heading", { level: 1, name: title, exact: true }).waitFor();
        await checkAccess(page);
        await check();
      }
      assert.ok(titles.length > 10);
      await close();
    });

    test("nobody is shut out", async () => {
      const { page, check, close } = await open(browser, world, { ...view, script: true });
      await page.goto(world.origin);
      await checkAccess(page);
      const token = await world.token(100);
      await world.ask(token, "hello");
      await page.getByLabel("Key (sk-…) or token").fill(token);
      await page.getByRole("button", { name: "Look" }).click();
      await page.locator("details[name=request] summary").first().click();
      await checkAccess(page);
      await page.getByRole("button", { name: "Refund to ecash" }).click();
      await page.getByRole("heading", { name: "Your ecash" }).waitFor();
      await checkAccess(page);
      await check();
      await close();
    });
  });
}

test("the keyboard is enough", async () => {
  const { page, check, close } = await open(browser, world, VIEWS[2]);
  await page.goto(world.origin);
  await page.keyboard.press("Tab");
  assert.equal(await page.locator(":focus").innerText(), "To the content");
  const token = await world.token(10);
  const focused = () => page.evaluate(() => document.activeElement?.id ?? "");
  for (let steps = 0; (await focused()) !== "secret"; steps += 1) {
    assert.ok(steps < 300, "Tab never comes to the form");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.insertText(token);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "This token is new here" }).waitFor();
  await check();
  await close();
});
