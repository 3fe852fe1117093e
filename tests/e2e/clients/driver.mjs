import readline from "node:readline";
import { Breaker } from "../../../docs/clients/breaker.mjs";

const [url, key, threshold, openMs, token, timeoutMs] = process.argv.slice(2);
const breaker = new Breaker(url, key, { threshold: +threshold, openMs: +openMs, token, timeoutMs: +timeoutMs });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [word, permit, outcome] = line.split(" ");
  if (word === "enter") console.log(await breaker.enter());
  else {
    await breaker.leave(permit, outcome === "ok");
    console.log("done");
  }
}
breaker.close();
