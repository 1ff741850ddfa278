// Takes the pictures in docs/images from a running `make demo-ui` in which milvus_backup_and_restore has run.
//
//   npm install --prefix /tmp/playwright playwright-core
//   NODE_PATH=/tmp/playwright/node_modules node demo/screenshots.mjs <address> <password> [<path of chromium>]

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

// Unlike an `import`, this looks in NODE_PATH: the package need not be installed in this repository.
const { chromium } = createRequire(import.meta.url)("playwright-core");
const [address, password, executablePath = "/usr/bin/chromium"] = process.argv.slice(2);
const image = (name) => fileURLToPath(new URL(`../docs/images/${name}.png`, import.meta.url));

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1400, height: 900 }, colorScheme: "light" });
page.setDefaultTimeout(90_000);

async function logIn() {
  await page.goto(address);
  await page.fill("input[name=username]", "admin");
  await page.fill("input[name=password]", password);
  await page.click("button[type=submit]");
  await page.waitForURL((url) => !url.pathname.includes("login"));
}

// The newest run, and the log of its restore task with the provider's own groups unfolded.
async function run() {
  const runs = await page.request.get(`${address}/api/v2/dags/milvus_backup_and_restore/dagRuns?order_by=-run_after&limit=1`);
  const id = encodeURIComponent((await runs.json()).dag_runs[0].dag_run_id);
  await page.goto(`${address}/dags/milvus_backup_and_restore/runs/${id}/tasks/restore`);
  await page.getByText("total, in").waitFor();
  for (const group of ["Plan", "Create and submit", "Finish"]) {
    await page.getByText(new RegExp(`^\\W*${group}$`)).click();
  }
  await settle();
  await page.screenshot({ path: image("run") });
}

// A new connection of type Milvus; the form of an existing one shows only the extra fields that have a value.
async function connection() {
  await page.setViewportSize({ width: 1100, height: 2400 });
  await page.goto(`${address}/connections`);
  await page.getByRole("button", { name: "Add Connection" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.locator("input[name=connection_id]").fill("milvus_production");
  await dialog.getByRole("combobox").click();
  await page.keyboard.type("milvus");
  await page.keyboard.press("Enter");
  await dialog.getByRole("button", { name: "Extra Fields", exact: true }).click();
  await dialog.getByText("Storage connection", { exact: true }).waitFor();
  for (const [field, value] of Object.entries({ bucket_name: "a-bucket", root_path: "files", aws_conn_id: "aws_default" })) {
    await dialog.locator(`[name=element_${field}]`).fill(value);
  }
  await dialog.getByText("Add Connection").click(); // takes the frame off the last field
  await settle();
  await dialog.screenshot({ path: image("connection") });
}

// Folding is animated.
async function settle() {
  await page.mouse.move(0, 0);
  await page.waitForTimeout(1500);
}

await logIn();
await run();
await connection();
await browser.close();
