import breakerd.Call;
import breakerd.CircuitOpen;
import breakerd.Client;
import breakerd.Decision;
import breakerd.Outcome;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/** The program through which test_clients.py drives the Java client; see driver.py. */
final class Driver {
    private static final List<String> MESSAGES = Collections.synchronizedList(new ArrayList<>());
    private static Client client;

    private static final class Failed extends Exception {
        private static final long serialVersionUID = 1;
    }

    private static String make(String[] words) {
        MESSAGES.clear();
        try {
            Client.Builder builder = Client.builder().log(MESSAGES::add);
            if (!words[1].equals("-")) builder.baseUrl(words[1]);
            if (!words[2].equals("-")) builder.token(words[2]);
            if (!words[3].equals("-")) builder.timeout(Duration.ofMillis(Long.parseLong(words[3])));
            if (!words[4].equals("-")) builder.retryAfterTrouble(Duration.ofMillis(Long.parseLong(words[4])));
            Client made = builder.build();
            if (client != null) client.close();
            client = made;
            return "made";
        } catch (IllegalArgumentException error) {
            return "refused: " + error.getMessage();
        }
    }

    private static String dash(String word) {
        return word.isEmpty() ? "-" : word;
    }

    private static String acquire(String key) {
        Decision d = client.acquire(key);
        return String.join(" ", d.allowed() ? "allowed" : "refused", dash(d.permit()), dash(d.state()), dash(d.reason()),
                String.valueOf(d.retryAfterMs()), d.unreachable() ? "unreachable" : "answered");
    }

    private static String report(String[] words) {
        String permit = words[2].equals("-") ? null : words[2];
        Duration duration = words[4].equals("-") ? null : Duration.ofNanos((long) (Double.parseDouble(words[4]) * 1e6));
        boolean counted = words[3].matches("[0-9]+") ? client.report(words[1], permit, Integer.parseInt(words[3]), duration)
                : client.report(words[1], permit, Outcome.valueOf(words[3].toUpperCase()), duration);
        return counted ? "counted" : "not counted";
    }

    private static String run(String key, String what) {
        try {
            if (what.equals("ok")) return client.run(key, () -> "passed");
            if (what.equals("fail")) return client.run(key, () -> {
                throw new Failed();
            });
            if (what.equals("cancel")) return client.run(key, () -> {
                throw new InterruptedException();
            });
            try (Call call = client.call(key)) {
                if (what.equals("ignored")) call.outcome(Outcome.IGNORED);
                else call.status(Integer.parseInt(what));
            }
            return "passed";
        } catch (Failed error) {
            return "failed";
        } catch (InterruptedException error) {
            return "cancelled";
        } catch (CircuitOpen refused) {
            return "refused " + refused.decision().reason() + " " + refused.decision().retryAfterMs();
        } catch (Exception error) {
            return "unexpected: " + error;
        }
    }

    private static String impatient(String key) throws InterruptedException {
        var decision = new java.util.concurrent.CompletableFuture<Decision>();
        Thread thread = new Thread(() -> decision.complete(client.acquire(key)));
        thread.start();
        thread.join(50);
        thread.interrupt();
        return decision.join().unreachable() ? "given up" : "answered";
    }

    private static String many(int n, String key, int threads) throws InterruptedException {
        AtomicInteger passed = new AtomicInteger(), waited = new AtomicInteger();
        List<Thread> running = new ArrayList<>();
        for (int t = 0; t < threads; t++) {
            running.add(new Thread(() -> {
                for (int i = 0; i < n / threads; i++) {
                    long began = System.nanoTime();
                    if (run(key, "ok").equals("passed")) passed.incrementAndGet();
                    if (System.nanoTime() - began >= 250_000_000) waited.incrementAndGet();
                }
            }));
        }
        running.forEach(Thread::start);
        for (Thread thread : running) thread.join();
        return passed + " passed (" + waited + " waited)";
    }

    public static void main(String[] args) throws Exception {
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] words = line.split("\t");
            out.println(switch (words[0]) {
                case "new" -> make(words);
                case "acquire" -> acquire(words[1]);
                case "report" -> report(words);
                case "run" -> run(words[1], words[2]);
                case "half" -> acquire(words[1] + "\ud800");
                case "impatient" -> impatient(words[1]);
                case "many" -> many(Integer.parseInt(words[1]), words[2], Integer.parseInt(words[3]));
                default -> MESSAGES.size() + " " + (MESSAGES.isEmpty() ? "" : MESSAGES.get(MESSAGES.size() - 1));
            });
        }
    }
}
