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
  await page.getByRole("button", { name: "Log in" }).click();
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
    await close();
  });
}
