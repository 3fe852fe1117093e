// The package of docs/clients/stoma can be built and installed as its README.md says.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

const here = fileURLToPath(new URL(".", import.meta.url));

test("the store's package", () => {
  const directory = mkdtempSync(join(tmpdir(), "breakerd-"));
  const run = (cwd, command, ...args) =>
    execFileSync(command, args, { cwd: join(directory, cwd), encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  try {
    cpSync(join(here, "../../docs/clients/stoma"), join(directory, "stoma"), { recursive: true });
    run("stoma", join(here, "node_modules/.bin/tsc"), "-p", ".", "--typeRoots", join(here, "node_modules/@types"));
    const archive = run("stoma", "npm", "pack", "--silent").trim();
    const files = run("stoma", "tar", "-tzf", archive).split("\n");
    for (const file of ["dist/breakerd-store.js", "dist/breakerd-store.d.ts", "README.md"])
      assert.ok(files.includes(`package/${file}`), file);
    run(".", "tar", "-xzf", join("stoma", archive));
    // Installed without Stoma itself, which a gateway has already.
    run(".", "mkdir", "-p", "gateway/node_modules");
    run(".", "mv", "package", "gateway/node_modules/breakerd-stoma");
    writeFileSync(join(directory, "gateway/try.mjs"),
      'import { BreakerdStore } from "breakerd-stoma"; console.log(typeof new BreakerdStore().recordFailure);');
    assert.equal(run("gateway", "node", "try.mjs"), "function\n");
  } finally {
    rmSync(directory, { recursive: true });
  }
});
