// node --import ./resolve-stoma.mjs: see resolve-hook.mjs.
import { webcrypto } from "node:crypto";
import { register } from "node:module";

register("./resolve-hook.mjs", import.meta.url);
// Stoma takes it from the global object, where Node 18 does not have it yet.
globalThis.crypto ??= webcrypto;
