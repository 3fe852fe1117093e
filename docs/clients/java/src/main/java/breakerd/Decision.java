package breakerd;

/**
 * The answer to {@link Client#acquire}.
 *
 * @param allowed whether the request may go
 * @param permit for the report; empty if there is none
 * @param state closed, open, half-open; empty if breakerd did not answer
 * @param reason closed, probe, open, probing, forced-open, forced-closed, observed; unreachable
 * @param retryAfterMs 0 if allowed
 * @param unreachable breakerd did not decide, so the request may pass
 */
public record Decision(boolean allowed, String permit, String state, String reason, long retryAfterMs, boolean unreachable) {
    static final Decision UNREACHABLE = new Decision(true, "", "", "unreachable", 0, true);
}
