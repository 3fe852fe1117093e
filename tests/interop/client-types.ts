// Compiled, never run: what the declarations of the Node client accept, and what they refuse.

import { CircuitOpen, Client, type Decision, type Outcome } from "../../docs/clients/node/breakerd.mjs";

const client = new Client({ baseUrl: "unix:/run/breakerd/breakerd.sock", token: "t", timeoutMs: 300, log: (m) => m.length });

export async function gateway(): Promise<number> {
  const decision: Decision = await client.acquire("orders");
  const outcome: Outcome = "ignored";
  const counted: boolean = await client.report("orders", { permit: decision.permit, outcome, durationMs: 1.5 });
  await client.report("orders", { status: 503 });
  // @ts-expect-error one of outcome and status
  await client.report("orders", { outcome, status: 503 });
  // @ts-expect-error no such outcome
  await client.report("orders", { outcome: "lost" });
  try {
    const text: string = await client.run("orders", async (call) => {
      call.status = 200;
      // @ts-expect-error breakerd decided
      call.decision.allowed = true;
      return counted ? "a" : call.decision.state;
    });
    return await client.run("orders", () => text.length);
  } catch (error) {
    return error instanceof CircuitOpen ? error.decision.retryAfterMs : 0;
  }
}

// @ts-expect-error no such setting
new Client({ url: "http://127.0.0.1:8747" });
