package breakerd;

/** What became of a request, where it is not told by the upstream's status. */
public enum Outcome {
    SUCCESS, FAILURE, IGNORED;

    String word() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }
}
