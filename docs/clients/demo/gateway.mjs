// A small gateway in Node: gateway.mjs BREAKERD UPSTREAM. Prints its port.

import http from "node:http";
import { CircuitOpen, Client } from "../node/breakerd.mjs";

const [breakerd, upstream] = process.argv.slice(2);
const client = new Client({ baseUrl: breakerd, timeoutMs: 2000 });

async function proxy(request) {
  try {
    return await client.run("orders", async (call) => {
      call.status = 0; // no answer yet
      const answer = await fetch(upstream + request.url, { signal: AbortSignal.timeout(5000) });
      call.status = answer.status;
      return [answer.status, await answer.text()];
    });
  } catch (error) {
    return error instanceof CircuitOpen ? [503, "the circuit is open\n"] : [502, "the upstream does not answer\n"];
  }
}

const server = http.createServer(async (request, response) => {
  const [status, body] = await proxy(request);
  response.writeHead(status).end(body);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
