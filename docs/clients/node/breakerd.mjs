// Asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and reports the outcome after it.
// Node 18, no dependencies.
//
//   import { CircuitOpen, Client } from "breakerd-client";
//
//   const client = new Client();                          // http://127.0.0.1:8747; one for the process
//
//   try {
//     const body = await client.run("orders", async (call) => {
//       const response = await fetch(upstream);
//       call.status = response.status;                    // breakerd's policy judges it
//       return response.text();
//     });
//   } catch (error) {
//     if (error instanceof CircuitOpen) ...               // answer 503; error.decision.retryAfterMs
//   }
//
// When breakerd does not answer, every request passes.

import http from "node:http";

const MAX_ANSWER = 65_536; // bytes; breakerd's are a few hundred
const MAX_CONNECTIONS = 64; // further requests wait for one, within timeoutMs
const LOG_INTERVAL_MS = 10_000;
const TEXT = "(?:[A-Za-z0-9_.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
const URL_TCP = new RegExp(`^http://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(?::([0-9]{1,5}))?((?:/${TEXT}*)*)$`);
const URL_UNIX = new RegExp(`^http\\+unix://(%2[Ff]${TEXT}+)((?:/${TEXT}*)*)$`);

/** breakerd refused the request: do not send it to the upstream. */
export class CircuitOpen extends Error {
  constructor(key, decision) {
    super(`circuit "${key}" is ${decision.reason}: ask again in ${decision.retryAfterMs} ms`);
    this.name = "CircuitOpen";
    this.key = key;
    this.decision = decision;
  }
}

/** breakerd did not answer, or not as breakerd does. pause: requests pass for a while without asking it. */
class NoAnswer extends Error {
  constructor(message, pause = true) {
    super(message);
    this.pause = pause;
  }
}

export class Client {
  #connect;
  #prefix;
  #timeoutMs;
  #pauseMs;
  #log;
  #retryAt = 0; // the end of the pause after trouble, by performance.now(); 0: no trouble
  #logAt = 0;

  constructor({ baseUrl = "http://127.0.0.1:8747", token, timeoutMs = 300, retryAfterTroubleMs = 1000,
    log = (message) => console.warn(message) } = {}) {
    const { connect, host, prefix } = parseBase(String(baseUrl));
    if (token && !/^[\x21-\x7e]+$/.test(token)) throw new TypeError("token must be printable ASCII without spaces");
    if (!(timeoutMs > 0) || !(retryAfterTroubleMs >= 0))
      throw new TypeError("timeoutMs must be above 0, retryAfterTroubleMs not below 0");
    this.#prefix = `${prefix.replace(/\/+$/, "")}/v1/circuits/`;
    this.#timeoutMs = timeoutMs;
    this.#pauseMs = retryAfterTroubleMs;
    this.#log = log;
    this.#connect = {
      ...connect,
      method: "POST",
      // Idle connections are closed here before breakerd does it (idle_timeout, 60 s).
      agent: new http.Agent({ keepAlive: true, maxSockets: MAX_CONNECTIONS, timeout: 30_000 }),
      headers: { host, ...(token && { authorization: `Bearer ${token}` }) },
    };
  }

  /** Whether a request may go to the upstream. Never rejects. */
  async acquire(key) {
    return await this.#ask(key, "acquire", "", decision)
      ?? { allowed: true, permit: "", state: "", reason: "unreachable", retryAfterMs: 0, unreachable: true };
  }

  /** Reports the outcome of a request. True if breakerd counted it. Never rejects. */
  async report(key, { permit, outcome, status, durationMs }) {
    const body = JSON.stringify({ permit: permit || undefined, outcome, status: outcome === undefined ? status : undefined,
      durationMs: durationMs === undefined ? undefined : Math.round(Math.max(durationMs, 0) * 1000) / 1000 });
    return await this.#ask(key, "report", body, counted) ?? false;
  }

  /** Runs a function between acquire and report. Rejects with CircuitOpen if it may not run, else with what it
      throws. An error is a failure, an AbortError is ignored, and no error is a success, unless call.status or
      call.outcome is set. */
  async run(key, fn) {
    const call = { decision: await this.acquire(key), status: undefined, outcome: undefined };
    if (!call.decision.allowed) throw new CircuitOpen(key, call.decision);
    const began = performance.now();
    let outcome = "success";
    try {
      return await fn(call);
    } catch (error) {
      outcome = error?.name === "AbortError" ? "ignored" : "failure";
      throw error;
    } finally {
      const told = call.outcome !== undefined || call.status !== undefined;
      if (!call.decision.unreachable)
        await this.report(key, { permit: call.decision.permit, outcome: told ? call.outcome : outcome,
          status: call.status, durationMs: performance.now() - began });
    }
  }

  /** Closes the connections. */
  close() {
    this.#connect.agent.destroy();
  }

  /** Returns what read makes of the answer; undefined without an answer. */
  async #ask(key, verb, body, read) {
    if (!this.#mayAsk()) return undefined;
    try {
      // Lets the event loop poll, so that it notices which connections breakerd has closed and sends no request on
      // one. Twice, because the first setImmediate may run directly after the poll that brought this request.
      await new Promise(setImmediate);
      await new Promise(setImmediate);
      const path = `${this.#prefix}${encode(String(key))}/${verb}`;
      const answer = read(await exchange({ ...this.#connect, path }, body, this.#timeoutMs));
      this.#retryAt = 0;
      return answer;
    } catch (error) {
      this.#trouble(error);
      return undefined;
    }
  }

  /** False in the pause after trouble. After the pause one request may ask, and the others pass until it has
      its answer. */
  #mayAsk() {
    if (this.#retryAt === 0) return true;
    const now = performance.now();
    if (now < this.#retryAt) return false;
    this.#retryAt = now + Math.max(this.#pauseMs, this.#timeoutMs);
    return true;
  }

  #trouble(error) {
    const now = performance.now();
    this.#retryAt = error.pause === false ? 0 : now + this.#pauseMs;
    if (now < this.#logAt) return;
    this.#logAt = now + LOG_INTERVAL_MS;
    try {
      this.#log(`breakerd: ${error.message || error.code}: requests pass`);
    } catch {
      // An error in the hook must not break a request.
    }
  }
}

function parseBase(baseUrl) {
  const tcp = URL_TCP.exec(baseUrl);
  const port = tcp ? Number(tcp[2] ?? 80) : 0;
  if (port >= 1 && port <= 65_535) {
    const [host] = baseUrl.slice("http://".length).split("/");
    return { connect: { hostname: tcp[1].replace(/^\[|\]$/g, ""), port }, host, prefix: tcp[3] };
  }
  const unix = URL_UNIX.exec(baseUrl);
  let socketPath = baseUrl.startsWith("unix:/") ? baseUrl.slice("unix:".length) : "";
  try {
    if (unix) socketPath = decodeURIComponent(unix[1]);
  } catch {
    // Not UTF-8: refused below.
  }
  const length = Buffer.byteLength(socketPath);
  // eslint-disable-next-line no-control-regex
  if (length < 2 || length > 107 || /[\x00-\x1f\x7f]/.test(socketPath))
    throw new TypeError("baseUrl must be http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH "
      + "(https is not spoken: breakerd has no TLS)");
  return { connect: { socketPath }, host: "localhost", prefix: unix?.[2] ?? "" };
}

/** A key as one segment of a path. Half a surrogate pair becomes what is not UTF-8, and breakerd refuses the key. */
function encode(key) {
  return key.split(/[\ud800-\udfff]/u).map(encodeURIComponent).join("%ED%A0%80");
}

function exchange(to, body, timeoutMs) {
  return new Promise((resolve, reject) => {
    const request = http.request({ ...to, headers: { ...to.headers, "content-length": Buffer.byteLength(body) } });
    const timer = setTimeout(() => request.destroy(new NoAnswer("no answer in time")), timeoutMs);
    const fail = (error) => {
      clearTimeout(timer);
      reject(error);
    };
    request.on("error", fail);
    request.on("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece) => {
        text += piece;
        if (text.length > MAX_ANSWER) request.destroy(new NoAnswer("the answer is too long"));
      });
      response.on("error", fail);
      response.on("end", () => {
        clearTimeout(timer);
        resolve({ status: response.statusCode, text });
      });
    });
    request.end(body);
  });
}

/** Returns the object of an answer with status 200; throws NoAnswer for other statuses. */
function decoded({ status, text }) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // Refused below or by the caller.
  }
  // A 504 took the whole store_timeout, and the next would too: pause. Other errors come at once or concern one circuit.
  if (status !== 200)
    throw new NoAnswer(`${status} ${String(answer?.detail ?? "").slice(0, 500)}`.trim(), status === 504);
  return answer;
}

function decision(response) {
  const answer = decoded(response);
  if (typeof answer?.allowed !== "boolean") throw new NoAnswer("this was answered by something that is not breakerd");
  const text = (name) => typeof answer[name] === "string" ? answer[name] : "";
  return { allowed: answer.allowed, permit: text("permit"), state: text("state"), reason: text("reason"),
    retryAfterMs: typeof answer.retryAfterMs === "number" ? answer.retryAfterMs : 0, unreachable: false };
}

function counted(response) {
  const answer = decoded(response);
  if (typeof answer?.counted !== "boolean") throw new NoAnswer("this was answered by something that is not breakerd");
  return answer.counted;
}
