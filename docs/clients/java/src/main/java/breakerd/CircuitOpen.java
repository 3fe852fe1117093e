package breakerd;

/** breakerd refused the request: do not send it to the upstream. */
public final class CircuitOpen extends Exception {
    private static final long serialVersionUID = 1;
    private final transient Decision decision;

    CircuitOpen(String key, Decision decision) {
        super("circuit \"" + key + "\" is " + decision.reason() + ": ask again in " + decision.retryAfterMs() + " ms");
        this.decision = decision;
    }

    public Decision decision() {
        return decision;
    }
}
