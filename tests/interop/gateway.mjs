// Stoma gateways as users run them: createGateway with the circuitBreaker policy, and a real HTTP upstream,
// which the test lets fail or hold its answers.

import { circuitBreaker, createGateway } from "@homegrower-club/stoma";
import http from "node:http";

export { BreakerdError, BreakerdStore } from "./.built/docs/clients/stoma/breakerd-store.js";

export const PATIENT = { resetTimeoutMs: 60_000 };
export const EAGER = { resetTimeoutMs: 0 };

export class Upstream {
  static async start() {
    const upstream = new Upstream();
    upstream.hits = 0;
    upstream.status = 200;
    upstream.waiting = null; // an array while answers are held
    upstream.server = http.createServer((request, response) => {
      upstream.hits++;
      const answer = () => response.writeHead(upstream.status).end("from the upstream");
      if (upstream.waiting) upstream.waiting.push(answer);
      else answer();
    });
    await new Promise((resolve) => upstream.server.listen(0, "127.0.0.1", resolve));
    upstream.url = `http://127.0.0.1:${upstream.server.address().port}`;
    return upstream;
  }

  hold() { this.waiting = []; }

  release() {
    const held = this.waiting;
    this.waiting = null;
    for (const answer of held) answer();
  }

  // The number of requests that reach the upstream during `act`.
  async during(act) {
    const before = this.hits;
    await act();
    return this.hits - before;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

// Returns request(path, headers), which asks through a gateway with this policy, and the changes that
// onStateChange was called with.
export function gateway(upstream, policy) {
  const changes = [];
  const { app } = createGateway({
    name: "test",
    routes: [{
      path: "/*",
      pipeline: {
        policies: [circuitBreaker({
          onStateChange: (key, from, to) => { changes.push([key, from, to]); },
          ...policy,
        })],
        upstream: { type: "url", target: upstream.url },
      },
    }],
  });
  const request = async (path = "/orders", headers = {}) => {
    const response = await app.request(path, { headers });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };
  return { request, changes };
}
