// A gateway with Stoma's policy on Stoma's own Redis store, and one with breakerd's policy, share a circuit.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Redis from "ioredis";
import { redisAdapter } from "@homegrower-club/stoma/adapters/redis";

import { gateway, PATIENT, Upstream } from "./gateway.mjs";
import { Breakerd, startRedis, until } from "./harness.mjs";

let server, redis, breakerd, upstream, stoma;

before(async () => {
  server = await startRedis();
  redis = new Redis({ host: "127.0.0.1", port: server.port });
  stoma = redisAdapter({ client: redis }).circuitBreakerStore;
  breakerd = await Breakerd.start(`--store=redis://127.0.0.1:${server.port}`, "--open-time=50ms",
    "--open-time-max=50ms", "--store-timeout=5000");
  upstream = await Upstream.start();
});
after(async () => {
  redis?.disconnect();
  await upstream?.stop();
  try {
    await breakerd?.stop();
  } finally {
    await server?.stop();
  }
});
beforeEach(() => redis.flushall());

const acquire = async (key) => (await breakerd.ask("POST", `/v1/circuits/${key}/acquire`)).body;
const report = async (key, body) => {
  const answer = await breakerd.ask("POST", `/v1/circuits/${key}/report`, body);
  assert.equal(answer.status, 200, answer.text);
  return answer.body;
};
const probe = (key) => until(async () => {
  const decision = await acquire(key);
  return decision.reason === "probe" && decision;
}, "the opening is over");

test("what breakerd opens is open for Stoma, and what it closes is closed", async () => {
  const { request } = gateway(upstream, { ...PATIENT, key: () => "a", store: stoma });
  upstream.status = 200;
  assert.equal((await request()).status, 200);
  for (let n = 1; n <= 5; n++)
    assert.equal((await report("a", { status: 503 })).state, n < 5 ? "closed" : "open");
  assert.equal(await upstream.during(async () => {
    assert.match((await request()).text, /circuit_open/);
  }), 0);
  const { permit } = await probe("a");
  assert.deepEqual(await report("a", { permit, status: 200 }),
    { counted: true, was: "half-open", state: "closed" });
  assert.equal((await request()).status, 200);
});

test("what Stoma opens is open for breakerd, and what it closes is closed", async () => {
  const { request } = gateway(upstream, { ...PATIENT, failureThreshold: 3, key: () => "b", store: stoma });
  const { permit } = await acquire("b");
  upstream.status = 503;
  for (let n = 0; n < 3; n++) await request();
  assert.equal((await stoma.getState("b")).state, "open");
  assert.equal((await report("b", { permit, outcome: "failure" })).reason, "stale");
  // breakerd obeys the opening: it lasts as long as the policy says, and then there is one probe.
  const first = await probe("b");
  assert.equal((await acquire("b")).reason, "probing");
  await stoma.transition("b", "closed");
  assert.equal((await report("b", { permit: first.permit, outcome: "failure" })).counted, false);
  assert.equal((await until(async () => {
    const decision = await acquire("b");
    return decision.reason === "closed" && decision;
  }, "breakerd has seen it")).allowed, true);
  // After Stoma's transition the window is empty and there are no consecutive failures.
  for (let n = 0; n < 4; n++)
    assert.equal((await report("b", { outcome: "failure" })).state, "closed");
});

test("what Stoma writes in between takes nothing from the window", async () => {
  for (let n = 0; n < 4; n++) await report("c", { outcome: "failure" });
  const { failureCount } = await stoma.recordFailure("c");
  assert.equal(failureCount, 5);
  await stoma.recordSuccess("c");
  assert.deepEqual(await report("c", { outcome: "failure" }),
    { counted: true, was: "closed", state: "open" });
  assert.equal((await stoma.getState("c")).failureCount, 6);
});
