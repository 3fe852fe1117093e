// Stoma's own circuitBreaker policy with docs/clients/stoma, on the real daemon with both stores.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";

import { BreakerdError, BreakerdStore, EAGER, gateway, PATIENT, Upstream } from "./gateway.mjs";
import { Breakerd, startRedis, until } from "./harness.mjs";

let upstream, redis;

before(async () => {
  upstream = await Upstream.start();
  redis = await startRedis();
});
after(async () => {
  await upstream?.stop();
  await redis?.stop();
});
beforeEach(() => { upstream.status = 200; });

// Long enough that nothing times out on a busy machine, except in the tests of time-outs.
const PATIENCE = 5000; // ms

const times = (n, act) => Array.from({ length: n }, (_, i) => act(i));
const url = (daemon) => `http://127.0.0.1:${daemon.port}`;

function assertRefused(answer, status = 503) {
  assert.equal(answer.status, status);
  assert.equal(JSON.parse(answer.text).error, "circuit_open");
}

for (const kind of ["memory", "redis"]) {
  describe(`on the ${kind} store`, () => {
    const args = () => kind === "redis"
      ? [`--store=redis://127.0.0.1:${redis.port}`, `--store-timeout=${PATIENCE}`] : [];
    let breakerd, store, prefix = 0;

    // Each test has keys of its own, because all tests share one Redis.
    const keyed = (options) => ({ store, key: (c) => `${kind}${prefix}${new URL(c.req.url).pathname}`, ...options });
    const circuit = (path = "/orders") => breakerd.getState(`${kind}${prefix}${path}`);

    before(async () => {
      breakerd = await Breakerd.start(...args());
      store = new BreakerdStore({ url: url(breakerd), timeoutMs: PATIENCE });
    });
    after(async () => {
      store?.destroy();
      await breakerd?.stop();
    });
    beforeEach(() => { prefix++; });

    test("the whole life of a circuit", async () => {
      const patient = gateway(upstream, keyed({ failureThreshold: 3, ...PATIENT }));
      assert.equal((await patient.request()).text, "from the upstream");
      assert.equal((await circuit()).successCount, 1);

      upstream.status = 500;
      for (let n = 1; n <= 3; n++) {
        assert.equal((await patient.request()).status, 500);
        assert.equal((await circuit()).failureCount, n);
      }
      assert.equal((await circuit()).state, "open");
      assert.equal(await upstream.during(async () => {
        for (let n = 0; n < 5; n++) assertRefused(await patient.request());
      }), 0);

      // Another gateway, with a reset time of 0, probes twice: the first probe fails, the second succeeds.
      const eager = gateway(upstream, keyed({ failureThreshold: 3, ...EAGER }));
      assert.equal((await eager.request()).status, 500);
      assert.equal((await circuit()).state, "open");
      assertRefused(await patient.request());
      upstream.status = 200;
      assert.equal((await eager.request()).status, 200);
      const { state, failureCount, successCount } = await circuit();
      assert.deepEqual({ state, failureCount, successCount }, { state: "closed", failureCount: 0, successCount: 0 });
      assert.equal((await patient.request()).status, 200);

      const key = `${kind}${prefix}/orders`;
      assert.deepEqual(patient.changes, [[key, "closed", "open"]]);
      assert.deepEqual(eager.changes, [[key, "open", "half-open"], [key, "half-open", "open"],
        [key, "open", "half-open"], [key, "half-open", "closed"]]);
    });

    test("the reset time is measured from the store's stamp", async () => {
      const { request } = gateway(upstream, keyed({ failureThreshold: 1, resetTimeoutMs: 700 }));
      upstream.status = 503;
      await request();
      const opened = (await circuit()).lastStateChange;
      upstream.status = 200;
      const answer = await until(async () => {
        const one = await request();
        return one.status === 200 && one;
      }, "a probe passes");
      assert.equal(answer.text, "from the upstream");
      assert.ok(Date.now() - opened >= 700);
      assert.equal((await circuit()).state, "closed");
    });

    test("a threshold is reached by the failures of two gateways together", async () => {
      const gateways = times(2, () => gateway(upstream, keyed({ failureThreshold: 6, ...PATIENT })));
      upstream.status = 502;
      for (let n = 0; n < 6; n++) assert.equal((await gateways[n % 2].request()).status, 502);
      assert.equal(await upstream.during(async () => {
        for (const one of gateways) assertRefused(await one.request());
      }), 0);
      assert.equal(gateways[0].changes.length + gateways[1].changes.length, 1);
    });

    test("no failure is lost, however many come at once", async () => {
      const gateways = times(2, () => gateway(upstream, keyed({ failureThreshold: 100, ...PATIENT })));
      upstream.status = 500;
      upstream.hold();
      const answers = Promise.all(times(100, (n) => gateways[n % 2].request()));
      const before = upstream.hits;
      await until(() => upstream.waiting.length === 100, `100 requests wait, of ${upstream.hits - before}`);
      upstream.release();
      for (const { status } of await answers) assert.equal(status, 500);
      assert.equal((await circuit()).failureCount, 100);
      assert.equal((await circuit()).state, "open");
    });

    test("statuses that are no failures do not count as such", async () => {
      const { request } = gateway(upstream, keyed({ failureThreshold: 1, failureOn: [418], ...PATIENT }));
      for (const status of [200, 301, 404, 429, 500, 503]) {
        upstream.status = status;
        assert.equal((await request()).status, status);
      }
      assert.equal((await circuit()).state, "closed");
      assert.equal((await circuit()).successCount, 6);
      upstream.status = 418;
      await request();
      assertRefused(await request());
    });

    test("an upstream that cannot be reached is a failure", async () => {
      const gone = await Upstream.start();
      await gone.stop();
      const { request } = gateway(gone, keyed({ failureThreshold: 2, ...PATIENT }));
      assert.ok((await request()).status >= 500);
      assert.ok((await request()).status >= 500);
      assertRefused(await request());
      assert.equal((await circuit()).failureCount, 2);
    });

    test("retry-after, and a status of one's own", async () => {
      const { request } = gateway(upstream, keyed({ failureThreshold: 1, openStatusCode: 429, ...PATIENT }));
      upstream.status = 500;
      await request();
      const answer = await request();
      assertRefused(answer, 429);
      const seconds = Number(answer.headers.get("retry-after"));
      assert.ok(seconds > 50 && seconds <= 60, `${seconds}`);
    });

    test("keys of every kind, one circuit each", async () => {
      const keys = ["/", "/api/users", "a b", "ключ", "100%", ".", "..", "a+b", "a?b#c", "%2F", "x".repeat(1024)];
      const options = keyed({ failureThreshold: 1, ...PATIENT });
      options.key = (c) => `${decodeURIComponent(c.req.header("x-key"))}`;
      const { request } = gateway(upstream, options);
      const ask = (key) => request("/", { "x-key": encodeURIComponent(key) });
      upstream.status = 500;
      for (const key of keys) {
        await breakerd.reset(key);
        assert.equal((await ask(key)).status, 500, key);
        assert.equal((await breakerd.getState(key)).state, "open", key);
        assertRefused(await ask(key));
      }
      // A key that breakerd refuses: the store fails for these requests alone, and they pass.
      assert.equal((await ask("a\nb")).status, 500);
      assert.equal((await ask("a\nb")).status, 500);
      for (const key of keys) await breakerd.reset(key);
    });

    test("paths are the circuits unless told otherwise, and `skip` skips", async () => {
      const { request } = gateway(upstream, { store, failureThreshold: 1, ...PATIENT,
        skip: (c) => c.req.header("x-skip") === "yes" });
      const path = `/${kind}/a%20b/${prefix}`;
      upstream.status = 500;
      await request(path);
      assert.equal((await breakerd.getState(path)).state, "open");
      assertRefused(await request(path));
      assert.equal((await request(`${path}/other`, { "x-skip": "yes" })).status, 500);
      assert.equal((await breakerd.getState(`${path}/other`)).failureCount, 0);
      assert.equal((await request(path, { "x-skip": "yes" })).status, 500);
    });

    test("half-open, as many probes as halfOpenMax says, the others are refused", async () => {
      const { request } = gateway(upstream, keyed({ failureThreshold: 1, halfOpenMax: 2, ...PATIENT }));
      await breakerd.transition(`${kind}${prefix}/orders`, "half-open");
      upstream.hold();
      const probes = times(2, () => request());
      await until(() => upstream.waiting.length === 2, "two probes are under way");
      assertRefused(await request());
      upstream.release();
      for (const probe of probes) assert.equal((await probe).status, 200);
      assert.equal((await circuit()).state, "closed");
    });

    test("a callback that throws disturbs nothing", async () => {
      let calls = 0;
      const { request } = gateway(upstream, keyed({ failureThreshold: 1, ...PATIENT,
        onStateChange: () => { calls++; throw new Error("on purpose"); } }));
      upstream.status = 500;
      assert.equal((await request()).status, 500);
      assertRefused(await request());
      assert.equal(calls, 1);
    });

    test("reset closes an open circuit", async () => {
      const { request } = gateway(upstream, keyed({ failureThreshold: 1, ...PATIENT }));
      upstream.status = 500;
      await request();
      assertRefused(await request());
      await store.reset(`${kind}${prefix}/orders`);
      upstream.status = 200;
      assert.equal((await request()).status, 200);
    });

    test("connections are kept", async () => {
      const accepted = () => breakerd.metric("breakerd_http_connections_accepted_total");
      const { request } = gateway(upstream, keyed(PATIENT));
      await request();
      const before = await accepted();
      for (let n = 0; n < 20; n++) await request();
      assert.equal(await accepted(), before);
    });

    test("with `from`, one of many transitions is made, the others learn why not", async () => {
      const key = `${kind}${prefix}/orders`;
      await store.transition(key, "open");
      const results = await Promise.allSettled(times(10, () => store.transition(key, "half-open", "open")));
      const errors = results.filter((r) => r.status === "rejected").map((r) => r.reason);
      assert.equal(errors.length, 9);
      for (const error of errors) {
        assert.ok(error instanceof BreakerdError);
        assert.deepEqual([error.code, error.status, error.applied], ["state_conflict", 409, "no"]);
      }
    });
  });
}

describe("when breakerd does not answer", () => {
  let breakerd, store;

  beforeEach(async () => {
    breakerd = await Breakerd.start();
    store = new BreakerdStore({ url: url(breakerd), timeoutMs: 150 });
  });
  afterEach(async () => {
    store.destroy();
    if (!breakerd.child.over) await breakerd.stop();
  });

  test("gone: every request passes, with the upstream's own answer", async () => {
    const { request, changes } = gateway(upstream, { store, failureThreshold: 1, ...PATIENT });
    upstream.status = 500;
    await request();
    assertRefused(await request());
    await breakerd.stop();
    await assert.rejects(store.getState("/orders"), { name: "BreakerdError", code: "no_answer", status: 0 });
    for (const status of [200, 500, 500, 204]) {
      upstream.status = status;
      assert.equal((await request()).status, status);
    }
    assert.equal(changes.length, 1);
    // When breakerd is back at the same address, the store uses it again, on a new connection.
    breakerd = await Breakerd.start(`--listen=127.0.0.1:${breakerd.port}`);
    upstream.status = 500;
    assert.equal((await request()).status, 500);
    assertRefused(await request());
  });

  test("frozen: a time-out of the store's own, and requests pass", async () => {
    const { request } = gateway(upstream, { store, failureThreshold: 1, ...PATIENT });
    await request();
    breakerd.child.kill("SIGSTOP");
    try {
      const began = performance.now();
      await assert.rejects(store.recordFailure("/orders"), { code: "timeout", applied: "unknown" });
      const took = performance.now() - began;
      assert.ok(took >= 145 && took < 2000, `${took}`);
      upstream.status = 500;
      assert.equal((await request()).status, 500);
      assert.equal((await request()).status, 500);
    } finally {
      breakerd.child.kill("SIGCONT");
    }
    await until(() => store.getState("/orders"), "it answers again");
  });

  test("a store that is away is an error with a code", async () => {
    await breakerd.stop();
    breakerd = await Breakerd.start("--store=redis://127.0.0.1:1", "--on-store-failure=error");
    store = new BreakerdStore({ url: url(breakerd), timeoutMs: PATIENCE });
    await assert.rejects(store.recordFailure("a"), { code: "store_unavailable", status: 503, applied: "no" });
    const { request } = gateway(upstream, { store, failureThreshold: 1, ...PATIENT });
    upstream.status = 500;
    for (let n = 0; n < 3; n++) assert.equal((await request()).status, 500);
  });

  test("something that is not breakerd", async () => {
    const { port } = new URL(upstream.url);
    const other = new BreakerdStore({ url: `http://127.0.0.1:${port}`, timeoutMs: PATIENCE });
    await assert.rejects(other.getState("a"), { name: "BreakerdError", status: 200 });
    upstream.status = 404;
    await assert.rejects(other.getState("a"), { name: "BreakerdError", status: 404 });
    other.destroy();
  });
});

describe("how it is reached", () => {
  test("a unix socket, and a token", async () => {
    const socketPath = `${redis.directory}/breakerd.sock`, token_file = `${redis.directory}/token`;
    const { writeFileSync } = await import("node:fs");
    writeFileSync(token_file, "t0ken\n");
    const breakerd = await Breakerd.start(`--listen=unix:${socketPath}`, `--token-file=${token_file}`);
    const store = new BreakerdStore({ socketPath, token: "t0ken", timeoutMs: PATIENCE });
    try {
      const { request } = gateway(upstream, { store, failureThreshold: 1, ...PATIENT });
      upstream.status = 500;
      await request();
      assertRefused(await request());
      const stranger = new BreakerdStore({ socketPath, timeoutMs: PATIENCE });
      await assert.rejects(stranger.recordFailure("a"), { code: "unauthorized", status: 401, applied: "no" });
      stranger.destroy();
    } finally {
      store.destroy();
      await breakerd.stop();
    }
  });
});
