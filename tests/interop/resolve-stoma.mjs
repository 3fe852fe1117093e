// node --import ./resolve-stoma.mjs: see resolve-hook.mjs.
import { webcrypto } from "node:crypto";
import { register } from "node:module";

register("./resolve-hook.mjs", import.meta.url);
// Stoma uses globalThis.crypto, which Node 18 does not have.
globalThis.crypto ??= webcrypto;
