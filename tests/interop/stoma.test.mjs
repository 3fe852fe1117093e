// Stoma's own RedisCircuitBreakerStore and breakerd on one Redis: each reads and changes what the other wrote.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Redis from "ioredis";
import { redisAdapter } from "@homegrower-club/stoma/adapters/redis";

import { Breakerd, startRedis } from "./harness.mjs";

const FIELDS = ["state", "failureCount", "successCount", "lastFailureTime", "lastStateChange"];
const KEYS = ["payments", "/api/users", "a b", "ключ", "100%", "..", "a+b", "x".repeat(1024)];

let server, redis, stoma, breakerd;

before(async () => {
  server = await startRedis();
  redis = new Redis({ host: "127.0.0.1", port: server.port });
  stoma = redisAdapter({ client: redis }).circuitBreakerStore;
  breakerd = await Breakerd.start(`--store=redis://127.0.0.1:${server.port}`);
});
after(async () => {
  redis?.disconnect();
  try {
    await breakerd?.stop();
  } finally {
    await server?.stop();
  }
});
beforeEach(() => redis.flushall());

const raw = (key) => redis.get(`stoma:cb:${key}`);

test("what Stoma writes breakerd reads, for every operation", async () => {
  assert.deepEqual(await stoma.recordFailure("a"), await breakerd.getState("a"));
  assert.deepEqual(await stoma.recordSuccess("a"), await breakerd.getState("a"));
  for (const to of ["open", "half-open", "closed", "open"]) {
    assert.deepEqual(await stoma.transition("a", to), await breakerd.getState("a"));
  }
  await stoma.reset("a");
  assert.equal((await breakerd.getState("a")).state, "closed");
});

test("what breakerd writes Stoma reads, for every operation", async () => {
  assert.deepEqual(await breakerd.recordFailure("a"), await stoma.getState("a"));
  assert.deepEqual(await breakerd.recordSuccess("a"), await stoma.getState("a"));
  for (const to of ["open", "half-open", "closed", "open"]) {
    assert.deepEqual(await breakerd.transition("a", to), await stoma.getState("a"));
  }
  await breakerd.reset("a");
  assert.equal((await stoma.getState("a")).state, "closed");
  assert.equal(await raw("a"), null);
});

test("they write the same bytes", async () => {
  const written = await breakerd.recordFailure("a");
  const entry = Object.fromEntries(FIELDS.map((name) => [name, written[name]]));
  assert.equal(await raw("a"), JSON.stringify(entry));
  await stoma.recordSuccess("a");
  assert.equal(await raw("a"), JSON.stringify({ ...entry, successCount: 1 }));
  await breakerd.recordSuccess("a");
  assert.equal(await raw("a"), JSON.stringify({ ...entry, successCount: 2 }));
  assert.deepEqual(await redis.keys("*"), ["stoma:cb:a"]);
});

test("taking turns, every step of a circuit's life is seen by both", async () => {
  const sides = [stoma, breakerd];
  for (let n = 1; n <= 10; n++) {
    const snapshot = await sides[n % 2].recordFailure("a");
    assert.equal(snapshot.failureCount, n);
  }
  await stoma.transition("a", "open");
  assert.equal((await breakerd.getState("a")).failureCount, 10);
  await breakerd.transition("a", "half-open");
  assert.equal((await stoma.recordSuccess("a")).successCount, 1);
  assert.equal((await breakerd.recordSuccess("a")).successCount, 2);
  const closed = await stoma.transition("a", "closed");
  assert.deepEqual(closed, await breakerd.getState("a"));
  assert.deepEqual([closed.failureCount, closed.successCount], [0, 0]);
  assert.ok(closed.lastFailureTime > 0);
});

test("a transition with `from` decides against what Stoma wrote", async () => {
  await stoma.transition("a", "open");
  const route = "/v1/circuits/a/transition";
  const refused = await breakerd.ask("POST", route, { to: "half-open", from: "closed" });
  assert.equal(refused.status, 409);
  assert.deepEqual(refused.body.circuit, await stoma.getState("a"));
  const done = await breakerd.ask("POST", route, { to: "half-open", from: "open" });
  assert.equal(done.status, 200);
  assert.deepEqual(done.body, await stoma.getState("a"));
});

test("members that breakerd does not know stay for Stoma to read", async () => {
  await stoma.transition("a", "open");
  const entry = JSON.parse(await raw("a"));
  const foreign = { labels: [], owner: { team: "é", ids: [1, 2.5, null] }, note: "a\"b\\c", deep: {} };
  await redis.set("stoma:cb:a", JSON.stringify({ ...foreign, ...entry }));
  for (const act of [() => breakerd.recordFailure("a"), () => breakerd.recordSuccess("a"),
    () => breakerd.transition("a", "half-open"), () => stoma.recordFailure("a"),
    () => breakerd.transition("a", "closed")]) {
    await act();
    const { labels, owner, note, deep, ...ours } = await stoma.getState("a");
    assert.deepEqual({ labels, owner, note, deep }, foreign);
    assert.deepEqual(ours, await breakerd.getState("a"));
  }
});

test("keys of every kind are the same key for both", async () => {
  for (const key of KEYS) {
    await stoma.recordFailure(key);
    assert.equal((await breakerd.recordFailure(key)).failureCount, 2);
    assert.equal((await stoma.getState(key)).failureCount, 2);
  }
  const { body } = await breakerd.ask("GET", "/v1/circuits");
  assert.deepEqual(body.circuits.map((c) => c.key).sort(), [...KEYS].sort());
  for (const key of KEYS) await breakerd.reset(key);
  assert.deepEqual(await redis.keys("*"), []);
});

test("both give the same time to live", async () => {
  await stoma.recordFailure("a");
  await breakerd.recordFailure("b");
  const [a, b] = [await redis.ttl("stoma:cb:a"), await redis.ttl("stoma:cb:b")];
  assert.ok(Math.abs(a - b) <= 1, `${a} and ${b}`);
});

test("a circuit of Stoma's that was never reset by it can be reset by breakerd", async () => {
  await stoma.recordFailure("a");
  await breakerd.reset("a");
  assert.equal(await raw("a"), null);
  assert.equal((await stoma.recordFailure("a")).failureCount, 1);
});
