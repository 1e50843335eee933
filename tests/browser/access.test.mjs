// The two pages with a script, in a real browser: the login by a Nostr extension, and the viewer of the API.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { checkAccess, launch, open, startDemo } from "./world.mjs";

const VIEWS = [
  { name: "phone", width: 360, scheme: "dark" },
  { name: "desk", width: 1600, scheme: "light" },
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

for (const view of VIEWS) {
  describe(view.name, () => {
    test("the operator logs in with an extension, and everywhere out", async () => {
      const { page, check, close } = await open(browser, world, { ...view, script: true, cookies: true });
      await page.goto(`${world.origin}/admin/login`);
      await checkAccess(page);
      await page.getByRole("button", { name: "Log in with a Nostr extension" }).click();
      await page.getByText("This browser has no Nostr extension.").waitFor();

      await page.exposeFunction("signAsOperator", (event) => world.sign(event));
      await page.addInitScript(() => {
        window.nostr = { signEvent: (event) => window.signAsOperator(event) };
      });
      await page.reload();
      await page.getByRole("button", { name: "Log in with a Nostr extension" }).click();
      await page.waitForURL(`${world.origin}/admin`);
      await page.getByRole("link", { name: "Access" }).click();
      await page.getByRole("heading", { name: "Access", level: 1 }).waitFor();
      await page.getByText("npub1").first().waitFor();
      await checkAccess(page);
      await page.getByLabel("Name of the program").fill("a test");
      await page.getByRole("button", { name: "Make a token" }).click();
      assert.match(await page.locator("code.secret").innerText(), /^coinslot_/);
      await checkAccess(page);
      await check();
      await page.getByRole("button", { name: "Revoke a test" }).first().click();
      await page.getByRole("button", { name: "Log out everywhere" }).click();
      await page.waitForURL(`${world.origin}/admin/login`);
      await check();
      await close();
    });

    test("the description of the API is read", async () => {
      const { page, check, close } = await open(browser, world, { ...view, script: true });
      await page.goto(`${world.origin}/docs`);
      await page.getByRole("link", { name: "every call" }).click();
      for (const tag of ["sold", "node"]) await page.locator(`#operations-tag-${tag}`).getByRole("button").click();
      await page.locator("#operations-sold-post_v1_chat_completions").waitFor();
      // One that is opened and tried.
      await page.locator("#operations-node-get_v1_info").getByRole("button").first().click();
      await page.getByRole("button", { name: "Try it out" }).click();
      await page.getByRole("button", { name: "Execute" }).click();
      await page.locator(".live-responses-table").getByText("receipt_pubkey").first().waitFor();
      await check();
      await close();
    });
  });
}
