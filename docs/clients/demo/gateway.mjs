// A small gateway in Node: gateway.mjs BREAKERD UPSTREAM THRESHOLD OPEN_SECONDS. Prints its port.

import http from "node:http";
import { Breaker } from "../five-operations/breaker.mjs";

const [breakerd, upstream, threshold, openSeconds] = process.argv.slice(2);
const breaker = new Breaker(breakerd, "orders", { threshold: +threshold, openMs: openSeconds * 1000, timeoutMs: 2000 });

const server = http.createServer(async (request, response) => {
  const permit = await breaker.enter();
  if (permit === "open") {
    response.writeHead(503).end("the circuit is open\n");
    return;
  }
  let status = 502, body = "the upstream does not answer\n";
  try {
    const answer = await fetch(upstream + request.url, { signal: AbortSignal.timeout(5000) });
    [status, body] = [answer.status, await answer.text()];
  } catch {
    // It stays 502.
  } finally {
    await breaker.leave(permit, status < 500);
  }
  response.writeHead(status).end(body);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
