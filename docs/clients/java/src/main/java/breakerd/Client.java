package breakerd;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.nio.channels.ClosedByInterruptException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;

/**
 * Asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and reports the outcome after it. Java 17,
 * no dependencies.
 *
 * <pre>{@code
 * Client client = Client.builder().build();             // http://127.0.0.1:8747; one for all threads
 *
 * try (Call call = client.call("orders")) {
 *     Response response = askTheUpstream();
 *     call.status(response.status());                   // breakerd's policy judges it; without it: a failure
 * } catch (CircuitOpen refused) {
 *     answer503(refused.decision().retryAfterMs());
 * }
 *
 * String body = client.run("orders", () -> askTheUpstream());   // an exception is a failure
 * }</pre>
 *
 * When breakerd does not answer, every request passes.
 */
public final class Client implements AutoCloseable {
    /** The version of the daemon that this client comes with. */
    public static final String VERSION = "0.2.0";

    private static final long LOG_INTERVAL = Duration.ofSeconds(10).toNanos();
    private static final System.Logger LOG = System.getLogger("breakerd");

    /** A function that gets its call. */
    @FunctionalInterface
    public interface Function<T> {
        T apply(Call call) throws Exception;
    }

    /** The settings of a client, each with its default. */
    public static final class Builder {
        private String baseUrl = "http://127.0.0.1:8747";
        private String token = "";
        private Duration timeout = Duration.ofMillis(300);
        private Duration retryAfterTrouble = Duration.ofSeconds(1);
        private Consumer<String> log = message -> LOG.log(System.Logger.Level.WARNING, message);

        private Builder() {}

        /** http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH. */
        public Builder baseUrl(String baseUrl) {
            this.baseUrl = baseUrl;
            return this;
        }

        /** A line of breakerd's token_file. */
        public Builder token(String token) {
            this.token = token == null ? "" : token;
            return this;
        }

        /** For a whole exchange with breakerd. */
        public Builder timeout(Duration timeout) {
            this.timeout = timeout;
            return this;
        }

        /** For this long after breakerd did not answer, requests pass without asking it. */
        public Builder retryAfterTrouble(Duration retryAfterTrouble) {
            this.retryAfterTrouble = retryAfterTrouble;
            return this;
        }

        /** Called at most every 10 s, from any thread. */
        public Builder log(Consumer<String> log) {
            this.log = log;
            return this;
        }

        /** @throws IllegalArgumentException if a setting is invalid */
        public Client build() {
            return new Client(this);
        }
    }

    public static Builder builder() {
        return new Builder();
    }

    private final Address address;
    private final Connections connections;
    private final String head;
    private final long timeout;
    private final long pause;
    private final Consumer<String> log;
    private final long began = System.nanoTime() - 1; // stamps below are nanoseconds since then, never 0
    private final AtomicLong retryAt = new AtomicLong(); // the end of the pause after trouble; 0: no trouble
    private final AtomicLong logAt = new AtomicLong();

    private Client(Builder settings) {
        address = Address.parse(settings.baseUrl);
        if (!settings.token.chars().allMatch(c -> c > ' ' && c < 0x7f))
            throw new IllegalArgumentException("token must be printable ASCII without spaces");
        if (settings.timeout.isNegative() || settings.timeout.isZero() || settings.retryAfterTrouble.isNegative())
            throw new IllegalArgumentException("timeout must be above 0, retryAfterTrouble not below 0");
        timeout = settings.timeout.toNanos();
        pause = settings.retryAfterTrouble.toNanos();
        log = settings.log;
        connections = new Connections(address);
        head = "Host: " + address.host() + "\r\n"
                + (settings.token.isEmpty() ? "" : "Authorization: Bearer " + settings.token + "\r\n");
    }

    /** Whether a request may go to the upstream. Throws nothing because of breakerd. */
    public Decision acquire(String key) {
        Map<String, Object> answer = ask(key, "acquire", "", "allowed");
        if (answer == null) return Decision.UNREACHABLE;
        return new Decision((Boolean) answer.get("allowed"), text(answer, "permit"), text(answer, "state"),
                text(answer, "reason"), answer.get("retryAfterMs") instanceof Double ms ? ms.longValue() : 0, false);
    }

    /** Reports the outcome of a request; permit and duration may be null. True if breakerd counted it. */
    public boolean report(String key, String permit, Outcome outcome, Duration duration) {
        return report(key, permit, "\"outcome\":\"" + outcome.word() + "\"", duration);
    }

    /** Reports the upstream's status, which breakerd's policy judges; 0: no answer came. */
    public boolean report(String key, String permit, int status, Duration duration) {
        return report(key, permit, "\"status\":" + status, duration);
    }

    private boolean report(String key, String permit, String how, Duration duration) {
        String body = "{" + (permit == null || permit.isEmpty() ? "" : "\"permit\":" + Json.quote(permit) + ",") + how
                + (duration == null ? "" : String.format(Locale.ROOT, ",\"durationMs\":%.3f", Math.max(0, duration.toNanos() / 1e6)))
                + "}";
        Map<String, Object> answer = ask(key, "report", body, "counted");
        return answer != null && (Boolean) answer.get("counted");
    }

    /** A request under way, for try-with-resources. */
    public Call call(String key) throws CircuitOpen {
        Decision decision = acquire(key);
        if (!decision.allowed()) throw new CircuitOpen(key, decision);
        return new Call(this, key, decision);
    }

    /** Runs a function between acquire and report. An exception is a failure, an InterruptedException is ignored, no exception is a success. */
    public <T> T run(String key, Callable<T> function) throws Exception {
        return run(key, call -> function.call());
    }

    /** The same for a function that may set the status or the outcome of its call. */
    public <T> T run(String key, Function<T> function) throws Exception {
        try (Call call = call(key)) {
            try {
                T result = function.apply(call);
                call.defaultOutcome(Outcome.SUCCESS);
                return result;
            } catch (InterruptedException interrupted) {
                call.defaultOutcome(Outcome.IGNORED);
                throw interrupted;
            }
        }
    }

    /** Closes the kept connections. */
    @Override
    public void close() {
        connections.close();
    }

    /** The answer, which has the Boolean member `must`; null without such an answer. */
    private Map<String, Object> ask(String key, String verb, String body, String must) {
        if (!mayAsk()) return null;
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        String request = "POST " + address.prefix() + Address.encode(key) + "/" + verb + " HTTP/1.1\r\n" + head
                + "Content-Length: " + bytes.length + "\r\n\r\n" + body;
        try {
            Response response = connections.exchange(request.getBytes(StandardCharsets.UTF_8), timeout);
            Map<String, Object> answer = Json.object(response.body());
            if (response.status() != 200) {
                // A 504 took the whole store_timeout, and the next would too: pause. Other errors come at once or concern
                // one circuit.
                String detail = answer == null ? "" : text(answer, "detail");
                trouble((response.status() + " " + detail.substring(0, Math.min(500, detail.length()))).strip(), response.status() == 504);
                return null;
            }
            if (answer == null || !(answer.get(must) instanceof Boolean))
                throw new IOException("this was answered by something that is not breakerd");
            retryAt.set(0);
            return answer;
        } catch (InterruptedIOException | ClosedByInterruptException error) {
            return null; // the caller's thread was interrupted, which is no trouble with breakerd
        } catch (IOException | RuntimeException error) {
            trouble(error.getMessage() == null ? error.toString() : error.getMessage(), true);
            return null;
        }
    }

    private static String text(Map<String, Object> answer, String name) {
        return answer.get(name) instanceof String text ? text : "";
    }

    /** False in the pause after trouble. After the pause one request may ask, and the others pass until it has its answer. */
    private boolean mayAsk() {
        long due = retryAt.get();
        if (due == 0) return true;
        long now = System.nanoTime() - began;
        return now >= due && retryAt.compareAndSet(due, now + Math.max(pause, timeout));
    }

    private void trouble(String message, boolean pausing) {
        long now = System.nanoTime() - began;
        retryAt.set(pausing ? now + pause : 0);
        long due = logAt.get();
        if (now < due || !logAt.compareAndSet(due, now + LOG_INTERVAL)) return;
        try {
            log.accept("breakerd: " + message + ": requests pass");
        } catch (RuntimeException mistake) {
            // An error in the hook must not break a request.
        }
    }
}
