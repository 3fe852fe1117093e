// Starts a redis-server and a breakerd for a test, on loopback, and sends requests to breakerd.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const BREAKERD = process.env.BREAKERD ?? fileURLToPath(new URL("../../build/breakerd", import.meta.url));
const DEADLINE = 10_000; // ms

// Calls `condition` until its result is true; a rejection counts as false.
export async function until(condition, what) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const result = await Promise.resolve().then(condition).catch(() => false);
    if (result) return result;
    if (Date.now() > end) throw new Error(`not within ${DEADLINE} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => resolve(socket.end() && true));
    socket.on("error", () => resolve(false));
  });
}

function run(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  child.output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (data) => { child.output += data; });
  child.ended = new Promise((resolve) => {
    child.on("error", (error) => { child.output += error; resolve(-1); });
    child.on("exit", (status, signal) => resolve(status ?? signal));
  });
  child.over = false;
  child.ended.then(() => { child.over = true; });
  return child;
}

async function onPort(port, start, what) {
  const child = start(port);
  await until(async () => child.over || listens(port), `${what} listens`);
  if (child.over) throw new Error(`${what} does not start: ${child.output}`);
  return { child, port };
}

// start(port) returns a child process. Tries another port if the first has been taken meanwhile.
async function onFreePort(start, what) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await onPort(await freePort(), start, what);
    } catch (error) {
      if (attempt === 5) throw error;
    }
  }
}

export async function startRedis() {
  const directory = mkdtempSync(path.join(tmpdir(), "brk-"));
  const { child, port } = await onFreePort((p) => run("redis-server", [
    "--port", p, "--bind", "127.0.0.1", "--save", "", "--dir", directory]), "redis-server");
  return {
    port,
    directory,
    async stop() {
      child.kill("SIGKILL");
      await child.ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export class Breakerd {
  static async start(...args) {
    const daemon = new Breakerd();
    // Listens on a free port too, unless `args` has a TCP address.
    const given = args.map((arg) => /^--listen=127\.0\.0\.1:(\d+)$/.exec(arg)).find(Boolean);
    const { child, port } = given
      ? await onPort(Number(given[1]), () => run(BREAKERD, args), "breakerd")
      : await onFreePort((p) => run(BREAKERD, [`--listen=127.0.0.1:${p}`, ...args]), "breakerd");
    Object.assign(daemon, { child, port, agent: new http.Agent({ keepAlive: true }) });
    if (!args.includes("--on-store-failure=error"))
      await until(async () => (await daemon.ask("GET", "/readyz")).body.status === "ready",
        "breakerd is ready");
    return daemon;
  }

  ask(method, route, body) {
    return new Promise((resolve, reject) => {
      const request = http.request({ host: "127.0.0.1", port: this.port, method, path: route,
        agent: this.agent, timeout: DEADLINE }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (data) => { text += data; });
        response.on("end", () => resolve({ status: response.statusCode, text,
          body: /json/.test(response.headers["content-type"]) ? JSON.parse(text) : null }));
      });
      request.on("error", reject);
      request.on("timeout", () => request.destroy(new Error("no answer in time")));
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async metric(name) {
    const { text } = await this.ask("GET", "/metrics");
    return Number(text.split("\n").find((line) => line.startsWith(`${name} `)).split(" ")[1]);
  }

  // The five operations, named as in Stoma's CircuitBreakerStore.
  async snapshot(method, key, verb, body) {
    const route = `/v1/circuits/${encodeURIComponent(key)}${verb ? `/${verb}` : ""}`;
    const answer = await this.ask(method, route, body);
    if (answer.status >= 300) throw new Error(`${method} ${route}: ${JSON.stringify(answer)}`);
    return answer.body;
  }
  getState(key) { return this.snapshot("GET", key); }
  recordSuccess(key) { return this.snapshot("POST", key, "success"); }
  recordFailure(key) { return this.snapshot("POST", key, "failure"); }
  transition(key, to) { return this.snapshot("POST", key, "transition", { to }); }
  reset(key) { return this.snapshot("DELETE", key); }

  async stop() {
    this.agent.destroy();
    this.child.kill("SIGTERM");
    const status = await this.child.ended;
    if (status !== 0 || /Sanitizer|runtime error:/.test(this.child.output))
      throw new Error(`breakerd ended with ${status}:\n${this.child.output}`);
  }
}
