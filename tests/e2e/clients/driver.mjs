// The program through which test_clients.py drives the Node client; see driver.py.
import fs from "node:fs";
import readline from "node:readline";
import { CircuitOpen, Client } from "breakerd-client";

let client, messages = [];
const number = (word) => word === "-" ? undefined : Number(word);
const empty = (word) => word === "-" ? undefined : word;
const failed = new Error("failed");

const commands = {
  new(url, token, timeoutMs, retryMs) {
    messages = [];
    client?.close();
    try {
      client = new Client({ baseUrl: empty(url), token: empty(token), timeoutMs: number(timeoutMs),
        retryAfterTroubleMs: number(retryMs), log: (message) => messages.push(message) });
      return "made";
    } catch (error) {
      return `refused: ${error.message}`;
    }
  },
  async acquire(key) {
    const d = await client.acquire(key);
    return [d.allowed ? "allowed" : "refused", d.permit || "-", d.state || "-", d.reason || "-", d.retryAfterMs,
      d.unreachable ? "unreachable" : "answered"].join(" ");
  },
  half: (key) => commands.acquire(`${key}\ud800`),
  async report(key, permit, outcome, durationMs) {
    const judged = /^\d+$/.test(outcome) ? { status: Number(outcome) } : { outcome };
    const yes = await client.report(key, { permit: empty(permit), durationMs: number(durationMs), ...judged });
    return yes ? "counted" : "not counted";
  },
  async run(key, what) {
    try {
      return await client.run(key, async (call) => {
        if (what === "fail") throw failed;
        if (what === "cancel") AbortSignal.abort().throwIfAborted();
        if (what === "ignored") call.outcome = what;
        else if (what !== "ok") call.status = Number(what);
        return "passed";
      });
    } catch (error) {
      if (error === failed) return "failed";
      if (error.name === "AbortError") return "cancelled";
      if (!(error instanceof CircuitOpen)) throw error;
      return `refused ${error.decision.reason} ${error.decision.retryAfterMs}`;
    }
  },
  async many(n, key, threads) {
    let passed = 0, waited = 0;
    const some = async () => {
      for (let i = 0; i < n / threads; i++) {
        const began = performance.now();
        if (await commands.run(key, "ok") === "passed") passed++;
        if (performance.now() - began >= 250) waited++;
      }
    };
    await Promise.all(Array.from({ length: threads }, some));
    return `${passed} passed (${waited} waited)`;
  },
  // Blocks the event loop after an answer until a line comes, then asks again.
  async busy(key) {
    await client.acquire(key);
    fs.writeSync(1, "busy\n");
    const line = Buffer.alloc(64);
    for (let n = 0; n === 0;) {
      try {
        n = fs.readSync(0, line);
      } catch (error) {
        if (error.code !== "EAGAIN") throw error;
      }
    }
    return commands.acquire(key);
  },
  log: () => `${messages.length} ${messages.at(-1) ?? ""}`,
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split("\t");
  console.log(await commands[command](...words));
}
client?.close();
