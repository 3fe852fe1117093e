// A CircuitBreakerStore for Stoma's circuit breaker that uses breakerd over HTTP. Node 18, no dependencies.
//
//   import { circuitBreaker } from "@homegrower-club/stoma";
//   import { BreakerdStore } from "./breakerd-store.js";
//
//   const store = new BreakerdStore({ url: "http://127.0.0.1:8747" });   // one for all routes
//   circuitBreaker({ store, failureThreshold: 5, resetTimeoutMs: 30_000 });
//
// When breakerd does not answer in time, or answers with an error, a method rejects with a
// BreakerdError. Stoma's policy then goes on as if the circuit were closed: it fails open.

import http from "node:http";

export type CircuitState = "closed" | "open" | "half-open";

export interface CircuitBreakerSnapshot {
  state: CircuitState;
  failureCount: number;
  successCount: number;
  lastFailureTime: number;
  lastStateChange: number;
}

export interface BreakerdOptions {
  /** Where breakerd listens; default http://127.0.0.1:8747. */
  url?: string;
  /** A unix socket that breakerd listens on, instead of `url`. */
  socketPath?: string;
  /** For a whole exchange, in milliseconds; default 300, a little more than breakerd's store_timeout (250). */
  timeoutMs?: number;
  /** Connections open at once; default 64. Further requests wait for one, within timeoutMs. */
  maxConnections?: number;
  /** A line of breakerd's token_file. */
  token?: string;
}

/** `code` is the code of breakerd's problem document, "timeout", or "no_answer". */
export class BreakerdError extends Error {
  override readonly name = "BreakerdError";
  constructor(
    readonly code: string,
    message: string,
    /** The status of the answer; 0 if none came. */
    readonly status = 0,
    /** For a write: "no" if it surely had no effect. */
    readonly applied: "no" | "unknown" = "unknown",
  ) {
    super(message);
  }
}

export class BreakerdStore {
  readonly #agent: http.Agent;
  readonly #base: http.RequestOptions;
  readonly #timeoutMs: number;

  constructor({ url = "http://127.0.0.1:8747", socketPath, timeoutMs = 300, maxConnections = 64, token }: BreakerdOptions = {}) {
    const { hostname, port } = new URL(url);
    // Idle connections are closed here before breakerd does it (idle_timeout, 60 s).
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: maxConnections, timeout: 30_000 });
    this.#timeoutMs = timeoutMs;
    this.#base = {
      agent: this.#agent,
      headers: token ? { authorization: `Bearer ${token}` } : {},
      ...(socketPath ? { socketPath } : { hostname: hostname.replace(/^\[|\]$/g, ""), port }),
    };
  }

  getState(key: string): Promise<CircuitBreakerSnapshot> {
    return this.#snapshot("GET", key);
  }

  recordSuccess(key: string): Promise<CircuitBreakerSnapshot> {
    return this.#snapshot("POST", key, "/success");
  }

  recordFailure(key: string): Promise<CircuitBreakerSnapshot> {
    return this.#snapshot("POST", key, "/failure");
  }

  /** With `from`, which Stoma does not pass, the circuit moves only if it still is in that state. */
  transition(key: string, to: CircuitState, from?: CircuitState): Promise<CircuitBreakerSnapshot> {
    return this.#snapshot("POST", key, "/transition", JSON.stringify({ to, from }));
  }

  async reset(key: string): Promise<void> {
    await this.#request("DELETE", key);
  }

  /** Closes the connections. */
  destroy(): void {
    this.#agent.destroy();
  }

  async #snapshot(method: string, key: string, verb?: string, body?: string): Promise<CircuitBreakerSnapshot> {
    const text = await this.#request(method, key, verb, body);
    try {
      return JSON.parse(text) as CircuitBreakerSnapshot;
    } catch {
      throw new BreakerdError("no_answer", "this was answered by something that is not breakerd", 200);
    }
  }

  #request(method: string, key: string, verb = "", body = ""): Promise<string> {
    return new Promise((resolve, reject) => {
      // A request that fails is not sent again, because a write might count twice.
      const fail = (error: Error) => reject(error instanceof BreakerdError ? error
        : error.name === "AbortError" ? new BreakerdError("timeout", `breakerd did not answer within ${this.#timeoutMs} ms`)
        : new BreakerdError("no_answer", `breakerd did not answer: ${error.message}`));
      const request = http.request({
        ...this.#base,
        method,
        path: `/v1/circuits/${encodeURIComponent(key)}${verb}`,
        headers: { ...this.#base.headers, "content-length": Buffer.byteLength(body) },
        signal: AbortSignal.timeout(this.#timeoutMs),
      }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (piece: string) => { text += piece; });
        response.on("error", fail);
        response.on("end", () => {
          const status = response.statusCode ?? 0;
          if (status >= 200 && status < 300) resolve(text);
          else reject(problem(status, text));
        });
      });
      request.on("error", fail);
      request.end(body);
    });
  }
}

function problem(status: number, text: string): BreakerdError {
  try {
    const { code, detail, applied } = JSON.parse(text);
    return new BreakerdError(code, `breakerd: ${detail}`, status, applied);
  } catch {
    return new BreakerdError("no_answer", `${status} from something that is not breakerd`, status);
  }
}
