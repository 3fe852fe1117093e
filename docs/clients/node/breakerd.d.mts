export interface ClientOptions {
  /** http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH; http://127.0.0.1:8747 unless told. */
  baseUrl?: string;
  /** What is in breakerd's token_file. */
  token?: string;
  /** For a whole exchange with breakerd; 300. */
  timeoutMs?: number;
  /** So long after breakerd did not answer, requests pass without asking it; 1000. */
  retryAfterTroubleMs?: number;
  /** Called at most every 10 s; console.warn. */
  log?: (message: string) => void;
}

export type State = "closed" | "open" | "half-open";
export type Reason = "closed" | "probe" | "open" | "probing" | "forced-open" | "forced-closed" | "observed" | "unreachable";
export type Outcome = "success" | "failure" | "ignored";

export interface Decision {
  readonly allowed: boolean;
  /** For the report; empty if there is none. */
  readonly permit: string;
  /** Empty if breakerd did not answer. */
  readonly state: State | "";
  readonly reason: Reason;
  /** 0 if allowed. */
  readonly retryAfterMs: number;
  /** breakerd did not decide, so the request may pass. */
  readonly unreachable: boolean;
}

/** What became of a request: outcome, or the upstream's status (0: no answer came). */
export type Report = { permit?: string; durationMs?: number } & (
  | { outcome: Outcome; status?: undefined }
  | { outcome?: undefined; status: number }
);

/** A request under way. */
export interface Call {
  readonly decision: Decision;
  /** Of the upstream's answer; breakerd's policy judges it. 0: none came. */
  status?: number | undefined;
  /** Stands before status. */
  outcome?: Outcome | undefined;
}

export class CircuitOpen extends Error {
  constructor(key: string, decision: Decision);
  readonly name: "CircuitOpen";
  readonly key: string;
  readonly decision: Decision;
}

export class Client {
  /** Throws a TypeError if an option cannot be. */
  constructor(options?: ClientOptions);
  /** May a request go to the upstream? Never rejects. */
  acquire(key: string): Promise<Decision>;
  /** Says what became of a request. True if breakerd counted it. Never rejects. */
  report(key: string, report: Report): Promise<boolean>;
  /** Both around a function. Rejects with CircuitOpen if it may not run, else with what it throws. */
  run<T>(key: string, fn: (call: Call) => T | PromiseLike<T>): Promise<T>;
  /** Closes the connections. */
  close(): void;
}
