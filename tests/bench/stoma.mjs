// Stoma's own Redis store through ioredis, and breakerd, from the same Node process: how fast failures on one
// circuit are recorded, and how many of them are stored in the end.
//
// usage: node stoma.mjs REDIS_PORT BREAKERD_PORT SECONDS CONCURRENCY...     (one Redis for both)

import http from "node:http";
import { createRequire } from "node:module";

const packages = new URL("../interop/package.json", import.meta.url);
const Redis = createRequire(packages)("ioredis");
const { redisAdapter } = await import(
  new URL("node_modules/@homegrower-club/stoma/dist/adapters/redis.js", packages));

const [redisPort, breakerdPort, seconds, ...concurrencies] = process.argv.slice(2).map(Number);

const redis = new Redis({ host: "127.0.0.1", port: redisPort });
const store = redisAdapter({ client: redis }).circuitBreakerStore;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1000 });

function post(path) {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { agent, host: "127.0.0.1", port: breakerdPort, method: "POST", path, headers: { "content-length": 0 } },
      (response) => {
        let body = "";
        response.on("data", (data) => { body += data; });
        response.on("end", () => (response.statusCode === 200 ? resolve(JSON.parse(body)) : reject(new Error(body))));
      });
    request.on("error", reject).end();
  });
}

async function run(key, concurrency, recordFailure) {
  const times = [];
  const began = performance.now();
  const end = began + seconds * 1000;
  async function client() {
    for (let before = performance.now(); before < end; ) {
      await recordFailure(key);
      const now = performance.now();
      times.push(now - before);
      before = now;
    }
  }
  await Promise.all(Array.from({ length: concurrency }, client));
  const took = (performance.now() - began) / 1000;
  times.sort((a, b) => a - b);
  const stored = JSON.parse(await redis.get(`stoma:cb:${key}`)).failureCount;
  const at = (share) => Math.round(times[Math.floor((times.length - 1) * share)] * 1000);
  return { concurrency, rate: times.length / took, p50: at(0.5), p99: at(0.99), recorded: times.length, stored };
}

const results = { stoma: [], breakerd: [] };
for (const concurrency of concurrencies) {
  results.stoma.push(await run(`stoma-${concurrency}`, concurrency, (key) => store.recordFailure(key)));
  results.breakerd.push(await run(`breakerd-${concurrency}`, concurrency, (key) => post(`/v1/circuits/${key}/failure`)));
}
console.log(JSON.stringify(results));
agent.destroy();
redis.disconnect();
