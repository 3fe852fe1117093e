package breakerd;

/** The outcome of a request, for callers that have no status of the upstream. */
public enum Outcome {
    SUCCESS, FAILURE, IGNORED;

    String word() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }
}
