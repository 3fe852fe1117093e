package breakerd;

import java.time.Duration;

/**
 * A request under way. {@link #close} reports it: what was told, else a failure, since that is how a block that threw
 * something ends.
 */
public final class Call implements AutoCloseable {
    private final Client client;
    private final String key;
    private final Decision decision;
    private final long began = System.nanoTime();
    private Outcome outcome;
    private int status = -1;
    private boolean closed;

    Call(Client client, String key, Decision decision) {
        this.client = client;
        this.key = key;
        this.decision = decision;
    }

    public Decision decision() {
        return decision;
    }

    /** Of the upstream's answer; breakerd's policy judges it. 0: none came. */
    public void status(int status) {
        this.status = status;
    }

    /** Stands before a status. */
    public void outcome(Outcome outcome) {
        this.outcome = outcome;
    }

    void unlessTold(Outcome outcome) {
        if (this.outcome == null && status < 0) this.outcome = outcome;
    }

    @Override
    public void close() {
        if (closed) return;
        closed = true;
        if (decision.unreachable()) return;
        Duration took = Duration.ofNanos(System.nanoTime() - began);
        if (outcome == null && status >= 0) client.report(key, decision.permit(), status, took);
        else client.report(key, decision.permit(), outcome == null ? Outcome.FAILURE : outcome, took);
    }
}
