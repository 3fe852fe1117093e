// A mixed fleet under load: one gateway on Stoma's own Redis store and one on breakerd, with the same Redis.
//
// Stoma's store reads, changes and writes in three steps. A change between its read and its write is lost,
// whether Stoma or breakerd made it: a count, or even a transition. The tests assert what holds nevertheless,
// and say why.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Redis from "ioredis";
import { redisAdapter } from "@homegrower-club/stoma/adapters/redis";

import { BreakerdStore, EAGER, gateway, PATIENT, Upstream } from "./gateway.mjs";
import { Breakerd, startRedis } from "./harness.mjs";

let server, redis, breakerd, upstream;
let stoma, ours; // the two stores

before(async () => {
  server = await startRedis();
  redis = new Redis({ host: "127.0.0.1", port: server.port });
  stoma = redisAdapter({ client: redis }).circuitBreakerStore;
  breakerd = await Breakerd.start(`--store=redis://127.0.0.1:${server.port}`);
  ours = new BreakerdStore({ url: `http://127.0.0.1:${breakerd.port}`, timeoutMs: 5000 });
  upstream = await Upstream.start();
});
after(async () => {
  redis?.disconnect();
  ours?.destroy();
  await upstream?.stop();
  try {
    await breakerd?.stop();
  } finally {
    await server?.stop();
  }
});
beforeEach(() => redis.flushall());

const keys = Array.from({ length: 50 }, (_, n) => `circuit ${n}`);
const repeat = async (n, act) => { for (let i = 0; i < n; i++) await act(i); };

test("turn by turn on fifty circuits at once, every write of either side is seen by the other", async () => {
  await Promise.all(keys.map(async (key) => {
    for (let n = 1; n <= 20; n++) {
      const [writer, reader] = n % 2 ? [stoma, ours] : [ours, stoma];
      const written = await writer.recordFailure(key);
      assert.equal(written.failureCount, n);
      assert.deepEqual(await reader.getState(key), written);
    }
    assert.deepEqual(await stoma.transition(key, "open"), await ours.getState(key));
    assert.deepEqual(await ours.transition(key, "half-open"), await stoma.getState(key));
    assert.equal((await stoma.recordSuccess(key)).successCount, 1);
    assert.equal((await ours.transition(key, "closed")).failureCount, 0);
    assert.deepEqual(await stoma.getState(key), await ours.getState(key));
  }));
});

test("both at once on one circuit: breakerd loses nothing of its own, Stoma loses no more than races", async () => {
  // breakerd alone, with 500 requests at once, counts exactly.
  await Promise.all(Array.from({ length: 500 }, () => ours.recordFailure("a")));
  assert.equal((await stoma.getState("a")).failureCount, 500);

  // One Stoma gateway writes 300 times, one after the other. Each of its writes is one more than what it read,
  // and that is at least its own previous write, because breakerd only adds. So at least its 300 are counted,
  // and at most all.
  await Promise.all([
    repeat(300, () => stoma.recordFailure("a")),
    Promise.all(Array.from({ length: 8 }, () => repeat(100, () => ours.recordFailure("a")))),
  ]);
  const { failureCount } = await ours.getState("a");
  assert.ok(failureCount >= 500 + 300 && failureCount <= 500 + 300 + 800, `${failureCount}`);
  assert.deepEqual(await stoma.getState("a"), await ours.getState("a"));

  // When Stoma has stopped writing, breakerd counts exactly again, on top of what is stored.
  await Promise.all(Array.from({ length: 100 }, () => ours.recordFailure("a")));
  assert.equal((await stoma.getState("a")).failureCount, failureCount + 100);
});

test("a fleet of both: the circuit opens for both, stays open, and closes for both", async () => {
  const policy = { failureThreshold: 20, key: () => "fleet" };
  const fleet = [gateway(upstream, { ...policy, ...PATIENT, store: stoma }),
    gateway(upstream, { ...policy, ...PATIENT, store: ours })];

  // A client on each gateway sends requests until it is refused. Stoma's gateway sends its requests one by one
  // and counts at least its own failures (see above), so it opens the circuit at its 20th at the latest. That
  // state stays, because Stoma writes nothing more and breakerd does not undo a transition.
  upstream.status = 503;
  const answers = [0, 0];
  const client = async (n) => {
    let opened = false;
    for (let refused = 0; refused < 30;) {
      const { text } = await fleet[n].request();
      if (/circuit_open/.test(text)) { refused++; opened = true; }
      else { answers[n]++; refused = 0; }
      assert.ok(answers[n] < 10_000, "it never opens");
    }
    return opened;
  };
  assert.deepEqual(await Promise.all([client(0), client(1)]), [true, true]);
  assert.equal((await stoma.getState("fleet")).state, "open");
  assert.deepEqual(await stoma.getState("fleet"), await ours.getState("fleet"));
  assert.ok(answers[0] + answers[1] >= 20, `${answers}`); // nobody opens it early

  // Both gateways refuse everything now.
  assert.equal(await upstream.during(() => Promise.all(fleet.map((one) => repeat(50, async () => {
    assert.match((await one.request()).text, /circuit_open/);
  })))), 0);

  // The probe of a gateway on one store fails: the gateway on the other store goes on refusing. Then the probe
  // succeeds: the other gateway lets requests pass. The same with the two stores exchanged.
  for (const [prober, other] of [[stoma, fleet[1]], [ours, fleet[0]]]) {
    const eager = gateway(upstream, { ...policy, ...EAGER, store: prober });
    upstream.status = 503;
    await prober.transition("fleet", "open");
    assert.equal((await eager.request()).status, 503);
    assert.match((await other.request()).text, /circuit_open/);
    upstream.status = 200;
    assert.equal((await eager.request()).status, 200);
    assert.equal((await other.request()).status, 200);
  }
  assert.deepEqual((await Promise.all([stoma, ours].map((s) => s.getState("fleet")))).map((c) => c.state),
    ["closed", "closed"]);
});

test("many circuits under load: each ends in the state that the last writer gave it, for both", async () => {
  await Promise.all(keys.map(async (key, n) => {
    const load = [stoma, ours].map((store) => repeat(10, (i) => (i + n) % 2 ? store.recordFailure(key) : store.recordSuccess(key)));
    await Promise.all(load);
    const last = n % 2 ? stoma : ours;
    const to = ["open", "half-open", "closed"][n % 3];
    const written = await last.transition(key, to);
    assert.equal(written.state, to);
    assert.deepEqual(await stoma.getState(key), written);
    assert.deepEqual(await ours.getState(key), written);
  }));
});
