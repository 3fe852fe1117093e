// A circuit breaker whose state many gateways share through breakerd. Node 18, no dependencies.
//
//   const breaker = new Breaker("http://127.0.0.1:8747", "orders", { threshold: 5, openMs: 30_000 });
//
//   const permit = await breaker.enter();
//   if (permit === "open") return 503;        // do not bother the upstream
//   const ok = await askTheUpstream();
//   await breaker.leave(permit, ok);          // also when it threw: in a finally
//
// When breakerd does not answer, every request is let through. No method rejects.

import http from "node:http";

export class Breaker {
  constructor(url, key, { threshold = 5, openMs = 30_000, timeoutMs = 300, token } = {}) {
    Object.assign(this, { threshold, openMs, timeoutMs, answering: true });
    const { hostname, port } = new URL(url);
    this.to = { hostname: hostname.replace(/^\[|\]$/g, ""), port };
    this.path = `/v1/circuits/${encodeURIComponent(key)}`;
    this.headers = token ? { authorization: `Bearer ${token}` } : {};
    // Idle connections are closed here before breakerd does it (idle_timeout, 60 s).
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 64, timeout: 30_000 });
  }

  // "closed": go. "half-open": go, you are the probe. "unknown": go, breakerd did not answer.
  // "open": do not go.
  async enter() {
    const circuit = await this.#ask("GET");
    if (!circuit) return "unknown";
    if (circuit.state === "closed") return "closed";
    if (Date.now() - circuit.lastStateChange < this.openMs) return "open";
    if (circuit.state === "half-open") { // whoever probed never came back
      await this.#transition("half-open", "open");
      return "open";
    }
    const won = await this.#transition("open", "half-open"); // of all gateways, one
    return won === null ? "unknown" : won ? "half-open" : "open";
  }

  // Says how the request went that enter() gave the permit for.
  async leave(permit, ok) {
    if (permit !== "closed" && permit !== "half-open") return;
    const circuit = await this.#ask("POST", ok ? "/success" : "/failure");
    if (permit === "half-open") await this.#transition("half-open", ok ? "closed" : "open");
    else if (!ok && circuit && circuit.failureCount >= this.threshold)
      await this.#transition("closed", "open");
  }

  close() {
    this.agent.destroy();
  }

  // The circuit; false if it was no longer in the state `from`; null without an answer.
  #transition(from, to) {
    return this.#ask("POST", "/transition", JSON.stringify({ from, to }));
  }

  async #ask(method, verb = "", body = "") {
    try {
      const { status, text } = await this.#request(method, this.path + verb, body);
      const answer = JSON.parse(text);
      if (status !== 200 && status !== 409) throw new Error(`${status} ${answer.detail}`);
      this.answering = true;
      return status === 200 && answer;
    } catch (error) {
      if (this.answering) // once, not for each request
        console.warn(`breakerd: ${error.message}: requests are let through`);
      this.answering = false;
      return null;
    }
  }

  #request(method, path, body) {
    return new Promise((resolve, reject) => {
      const request = http.request({
        ...this.to, method, path, agent: this.agent,
        headers: { ...this.headers, "content-length": Buffer.byteLength(body) },
        signal: AbortSignal.timeout(this.timeoutMs), // for the whole exchange
      }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (piece) => { text += piece; });
        response.on("end", () => resolve({ status: response.statusCode, text }));
        response.on("error", reject);
      });
      request.on("error", reject);
      request.end(body);
    });
  }
}
