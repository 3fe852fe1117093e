import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;

final class Driver {
    public static void main(String[] args) throws Exception {
        var breaker = new Breaker(args[0], args[1], Integer.parseInt(args[2]), Duration.ofMillis(Long.parseLong(args[3])));
        breaker.token = args[4];
        breaker.timeout = Duration.ofMillis(Long.parseLong(args[5]));
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] words = line.split(" ");
            if (words[0].equals("enter")) {
                System.out.println(breaker.enter().name().toLowerCase().replace('_', '-'));
            } else {
                breaker.leave(Breaker.Permit.valueOf(words[1].toUpperCase().replace('-', '_')), words[2].equals("ok"));
                System.out.println("done");
            }
        }
    }
}
