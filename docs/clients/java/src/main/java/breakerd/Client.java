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
 * Asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and tells it what became of it. Java 17,
 * nothing else.
 *
 * <pre>{@code
 * Client client = Client.builder().build();             // http://127.0.0.1:8747; one for all threads
 *
 * try (Call call = client.call("orders")) {
 *     Response response = askTheUpstream();
 *     call.status(response.status());                   // breakerd's policy judges it; nothing told is a failure
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
    /** That of the daemon that this client comes with. */
    public static final String VERSION = "0.2.0";

    private static final long LOG_INTERVAL = Duration.ofSeconds(10).toNanos();
    private static final System.Logger LOG = System.getLogger("breakerd");

    /** A function that is told of its call. */
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

        /** What is in breakerd's token_file. */
        public Builder token(String token) {
            this.token = token == null ? "" : token;
            return this;
        }

        /** For a whole exchange with breakerd. */
        public Builder timeout(Duration timeout) {
            this.timeout = timeout;
            return this;
        }

        /** So long after breakerd did not answer, requests pass without asking it. */
        public Builder retryAfterTrouble(Duration retryAfterTrouble) {
            this.retryAfterTrouble = retryAfterTrouble;
            return this;
        }

        /** Called at most every 10 s, from any thread. */
        public Builder log(Consumer<String> log) {
            this.log = log;
            return this;
        }

        /** @throws IllegalArgumentException if a setting cannot be */
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
    private final AtomicLong retryAt = new AtomicLong(); // not 0: in trouble, the next try is due then
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

    /** May a request go to the upstream? Throws nothing for what breakerd does. */
    public Decision acquire(String key) {
        Map<String, Object> answer = ask(key, "acquire", "", "allowed");
        if (answer == null) return Decision.UNREACHABLE;
        return new Decision((Boolean) answer.get("allowed"), text(answer, "permit"), text(answer, "state"),
                text(answer, "reason"), answer.get("retryAfterMs") instanceof Double ms ? ms.longValue() : 0, false);
    }

    /** Says what became of a request; permit and duration may be null. True if breakerd counted it. */
    public boolean report(String key, String permit, Outcome outcome, Duration duration) {
        return report(key, permit, "\"outcome\":\"" + outcome.word() + "\"", duration);
    }

    /** The same with the upstream's status; 0: no answer came. */
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

    /** Both around a function: an exception is a failure, an InterruptedException is ignored, and neither is a success. */
    public <T> T run(String key, Callable<T> function) throws Exception {
        return run(key, call -> function.call());
    }

    /** The same, unless the function tells its call otherwise. */
    public <T> T run(String key, Function<T> function) throws Exception {
        try (Call call = call(key)) {
            try {
                T result = function.apply(call);
                call.unlessTold(Outcome.SUCCESS);
                return result;
            } catch (InterruptedException interrupted) {
                call.unlessTold(Outcome.IGNORED);
                throw interrupted;
            }
        }
    }

    /** Closes the connections that wait. */
    @Override
    public void close() {
        connections.close();
    }

    /** The answer, which has `must` as a Boolean; null without one. */
    private Map<String, Object> ask(String key, String verb, String body, String must) {
        if (!mayAsk()) return null;
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        String request = "POST " + address.prefix() + Address.encode(key) + "/" + verb + " HTTP/1.1\r\n" + head
                + "Content-Length: " + bytes.length + "\r\n\r\n" + body;
        try {
            Response response = connections.exchange(request.getBytes(StandardCharsets.UTF_8), timeout);
            Map<String, Object> answer = Json.object(response.body());
            if (response.status() != 200) {
                // A 504 took its time, and so would the next. The others come at once, or concern one circuit.
                String detail = answer == null ? "" : text(answer, "detail");
                trouble((response.status() + " " + detail.substring(0, Math.min(500, detail.length()))).strip(), response.status() == 504);
                return null;
            }
            if (answer == null || !(answer.get(must) instanceof Boolean))
                throw new IOException("this was answered by something that is not breakerd");
            retryAt.set(0);
            return answer;
        } catch (InterruptedIOException | ClosedByInterruptException error) {
            return null; // the caller's thread was interrupted: no trouble with breakerd
        } catch (IOException | RuntimeException error) {
            trouble(error.getMessage() == null ? error.toString() : error.getMessage(), true);
            return null;
        }
    }

    private static String text(Map<String, Object> answer, String name) {
        return answer.get(name) instanceof String text ? text : "";
    }

    /** False in a pause. Whoever finds it over is the only one to try until the outcome is known. */
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
            // A hook's mistake must not break a request.
        }
    }
}
