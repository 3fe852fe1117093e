package breakerd;

import java.time.Duration;

/**
 * A request under way. {@link #close} reports its outcome or status; a failure if neither is set, because a block that
 * throws ends in this way.
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

    /** The status of the upstream's answer, which breakerd's policy judges. 0: none came. */
    public void status(int status) {
        this.status = status;
    }

    /** The outcome, which is used rather than a status. */
    public void outcome(Outcome outcome) {
        this.outcome = outcome;
    }

    void defaultOutcome(Outcome outcome) {
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
