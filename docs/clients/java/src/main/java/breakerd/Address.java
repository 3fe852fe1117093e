package breakerd;

import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.net.UnixDomainSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** The parts of a base URL. socket is null for TCP. */
record Address(String name, int port, String socket, String host, String prefix) {
    private static final String TEXT = "(?:[A-Za-z0-9_.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
    private static final Pattern TCP =
            Pattern.compile("http://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(?::([0-9]{1,5}))?((?:/" + TEXT + "*)*+)");
    private static final Pattern UNIX = Pattern.compile("http\\+unix://(%2[Ff]" + TEXT + "+)((?:/" + TEXT + "*)*+)");

    static Address parse(String url) {
        Matcher tcp = TCP.matcher(url);
        if (tcp.matches()) {
            int port = tcp.group(2) == null ? 80 : Integer.parseInt(tcp.group(2));
            if (port >= 1 && port <= 65535)
                return new Address(tcp.group(1).replaceAll("[\\[\\]]", ""), port, null,
                        url.substring("http://".length()).split("/", 2)[0], circuits(tcp.group(3)));
        }
        Matcher unix = UNIX.matcher(url);
        boolean encoded = unix.matches();
        String socket = encoded ? URLDecoder.decode(unix.group(1).replace("+", "%2B"), StandardCharsets.UTF_8)
                : url.startsWith("unix:/") ? url.substring("unix:".length()) : "";
        int length = socket.getBytes(StandardCharsets.UTF_8).length;
        if (length < 2 || length > 107 || socket.chars().anyMatch(c -> c < ' ' || c == 0x7f))
            throw new IllegalArgumentException("baseUrl must be http://HOST[:PORT][/PATH], unix:/PATH or "
                    + "http+unix://%2FPATH (https is not spoken: breakerd has no TLS)");
        return new Address(null, 0, socket, "localhost", circuits(encoded ? unix.group(2) : ""));
    }

    private static String circuits(String path) {
        int end = path.length();
        while (end > 0 && path.charAt(end - 1) == '/') end--;
        return path.substring(0, end) + "/v1/circuits/";
    }

    /** A key as one segment of a path. Half a surrogate pair becomes what is not UTF-8, and breakerd refuses the key. */
    static String encode(String key) {
        return Arrays.stream(key.split("[\\x{d800}-\\x{dfff}]", -1))
                .map(part -> URLEncoder.encode(part, StandardCharsets.UTF_8).replace("+", "%20"))
                .collect(Collectors.joining("%ED%A0%80"));
    }

    /** Looks the name up, each time. */
    SocketAddress resolve() {
        return socket == null ? new InetSocketAddress(name, port) : UnixDomainSocketAddress.of(socket);
    }
}
