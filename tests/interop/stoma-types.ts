// Compiled, never run: the store has the type that Stoma's policy takes.

import type { CircuitBreakerStore } from "./node_modules/@homegrower-club/stoma/dist/policies/resilience/circuit-breaker.js";
import { BreakerdStore } from "../../docs/clients/stoma/breakerd-store.js";

const store: CircuitBreakerStore = new BreakerdStore({ url: "http://127.0.0.1:8747" });
store.destroy?.();
