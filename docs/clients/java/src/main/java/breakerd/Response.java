package breakerd;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Locale;

/** An HTTP/1.1 response. keep: its connection may be used again. */
record Response(int status, String body, boolean keep) {
    /** null if the response is not complete yet. data has one character for each byte (ISO-8859-1). */
    static Response parse(String data) throws IOException {
        if (!data.startsWith("HTTP/1.".substring(0, Math.min(7, data.length())))) throw new IOException("this is no HTTP");
        int end = data.indexOf("\r\n\r\n");
        if (end < 0) return null;
        String[] lines = data.substring(0, end).split("\r\n");
        if (!lines[0].matches("HTTP/1\\.[01] [0-9]{3}.*")) throw new IOException("this is no HTTP");
        boolean keep = lines[0].startsWith("HTTP/1.1"), chunked = false;
        int length = -1;
        for (int i = 1; i < lines.length; i++) {
            String line = lines[i].toLowerCase(Locale.ROOT).replaceAll("\\s+", "");
            if (line.equals("connection:close")) keep = false;
            if (line.equals("transfer-encoding:chunked")) chunked = true;
            if (line.matches("content-length:[0-9]{1,9}")) length = Integer.parseInt(line.substring("content-length:".length()));
        }
        String rest = data.substring(end + 4), body;
        if (chunked) {
            body = unchunk(rest);
        } else {
            if (length < 0) throw new IOException("this is no HTTP");
            body = rest.length() < length ? null : rest.substring(0, length);
            keep = keep && rest.length() == length;
        }
        if (body == null) return null;
        String text = new String(body.getBytes(StandardCharsets.ISO_8859_1), StandardCharsets.UTF_8);
        return new Response(Integer.parseInt(lines[0].substring(9, 12)), text, keep);
    }

    private static String unchunk(String data) throws IOException {
        StringBuilder body = new StringBuilder();
        for (int at = 0;;) {
            int end = data.indexOf("\r\n", at);
            if (end < 0) return null;
            String size = data.substring(at, end).split("[; ]", 2)[0];
            if (!size.matches("[0-9a-fA-F]{1,7}")) throw new IOException("this is no HTTP");
            int length = Integer.parseInt(size, 16);
            at = end + 2;
            if (length == 0) return data.startsWith("\r\n", at) ? body.toString() : null;
            if (data.length() < at + length + 2) return null;
            body.append(data, at, at + length);
            at += length + 2;
        }
    }
}
