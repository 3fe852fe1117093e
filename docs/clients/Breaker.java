import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.*;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.regex.*;

/**
 * A circuit breaker whose state many gateways share through breakerd. Java 17, nothing else.
 *
 * <pre>{@code
 * var breaker = new Breaker("http://127.0.0.1:8747", "orders", 5, Duration.ofSeconds(30));
 *
 * Breaker.Permit permit = breaker.enter();
 * if (permit == Breaker.Permit.OPEN) return 503;   // do not bother the upstream
 * boolean ok = false;
 * try { ok = askTheUpstream(); } finally { breaker.leave(permit, ok); }
 * }</pre>
 *
 * Threads may share a Breaker. When breakerd does not answer, every request is let through.
 */
public final class Breaker {
    /** CLOSED: go. HALF_OPEN: go, you are the probe. UNKNOWN: go, breakerd did not answer. OPEN: do not go. */
    public enum Permit { CLOSED, HALF_OPEN, OPEN, UNKNOWN }

    private static final System.Logger LOG = System.getLogger("breakerd");
    private static final Pattern STATE = Pattern.compile("\"state\":\"([a-z-]+)\"");
    // Keeps connections open, and notices when breakerd closes one.
    private static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private final String url;
    private final int threshold;
    private final Duration openTime;
    public volatile Duration timeout = Duration.ofMillis(300); // for a whole exchange
    public volatile String token; // of breakerd's token_file
    private volatile boolean answering = true;

    public Breaker(String base, String key, int threshold, Duration openTime) {
        this.url = base + "/v1/circuits/" + URLEncoder.encode(key, StandardCharsets.UTF_8).replace("+", "%20");
        this.threshold = threshold;
        this.openTime = openTime;
    }

    public Permit enter() {
        String circuit = ask("GET", "", "");
        Matcher state = STATE.matcher(circuit == null ? "" : circuit);
        if (!state.find()) return Permit.UNKNOWN;
        if (state.group(1).equals("closed")) return Permit.CLOSED;
        if (System.currentTimeMillis() - number(circuit, "lastStateChange") < openTime.toMillis()) return Permit.OPEN;
        if (state.group(1).equals("half-open")) { // whoever probed never came back
            transition("half-open", "open");
            return Permit.OPEN;
        }
        String won = transition("open", "half-open"); // of all gateways, one
        return won == null ? Permit.UNKNOWN : won.isEmpty() ? Permit.OPEN : Permit.HALF_OPEN;
    }

    /** Says how the request went that enter() gave the permit for. */
    public void leave(Permit permit, boolean ok) {
        if (permit != Permit.CLOSED && permit != Permit.HALF_OPEN) return;
        String circuit = ask("POST", ok ? "/success" : "/failure", "");
        if (permit == Permit.HALF_OPEN) transition("half-open", ok ? "closed" : "open");
        else if (!ok && circuit != null && number(circuit, "failureCount") >= threshold) transition("closed", "open");
    }

    private String transition(String from, String to) {
        return ask("POST", "/transition", "{\"from\":\"" + from + "\",\"to\":\"" + to + "\"}");
    }

    /** The circuit as JSON; empty if it was no longer in the state `from`; null without an answer. */
    private String ask(String method, String verb, String body) {
        try {
            var request = HttpRequest.newBuilder(URI.create(url + verb)).timeout(timeout)
                    .method(method, HttpRequest.BodyPublishers.ofString(body));
            if (token != null) request.header("Authorization", "Bearer " + token);
            var response = HTTP.send(request.build(), HttpResponse.BodyHandlers.ofString());
            if (response.statusCode() != 200 && response.statusCode() != 409) throw new IOException(response.body());
            answering = true;
            return response.statusCode() == 200 ? response.body() : "";
        } catch (IOException | InterruptedException e) {
            if (e instanceof InterruptedException) Thread.currentThread().interrupt();
            if (answering) LOG.log(System.Logger.Level.WARNING, "breakerd: {0}: requests are let through", e);
            answering = false; // said once, not for each request
            return null;
        }
    }

    private static long number(String circuit, String name) {
        Matcher m = Pattern.compile("\"" + name + "\":(\\d+)").matcher(circuit);
        return m.find() ? Long.parseLong(m.group(1)) : 0;
    }
}
