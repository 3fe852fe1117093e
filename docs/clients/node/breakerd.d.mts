export interface ClientOptions {
  /** http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH; default http://127.0.0.1:8747. */
  baseUrl?: string;
  /** A line of breakerd's token_file. */
  token?: string;
  /** For a whole exchange with breakerd; default 300. */
  timeoutMs?: number;
  /** For this long after breakerd did not answer, requests pass without asking it; default 1000. */
  retryAfterTroubleMs?: number;
  /** Called at most every 10 s; default console.warn. */
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

/** The outcome of a request, or the upstream's status (0: no answer came). */
export type Report = { permit?: string; durationMs?: number } & (
  | { outcome: Outcome; status?: undefined }
  | { outcome?: undefined; status: number }
);

/** A request under way. */
export interface Call {
  readonly decision: Decision;
  /** The status of the upstream's answer, which breakerd's policy judges. 0: none came. */
  status?: number | undefined;
  /** Used rather than status. */
  outcome?: Outcome | undefined;
}

export class CircuitOpen extends Error {
  constructor(key: string, decision: Decision);
  readonly name: "CircuitOpen";
  readonly key: string;
  readonly decision: Decision;
}

export class Client {
  /** Throws a TypeError if an option is invalid. */
  constructor(options?: ClientOptions);
  /** Whether a request may go to the upstream. Never rejects. */
  acquire(key: string): Promise<Decision>;
  /** Reports the outcome of a request. True if breakerd counted it. Never rejects. */
  report(key: string, report: Report): Promise<boolean>;
  /** Runs a function between acquire and report. Rejects with CircuitOpen if it may not run, else with what it throws. */
  run<T>(key: string, fn: (call: Call) => T | PromiseLike<T>): Promise<T>;
  /** Closes the connections. */
  close(): void;
}
