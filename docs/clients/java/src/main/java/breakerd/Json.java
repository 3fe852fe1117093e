package breakerd;

import java.util.HashMap;
import java.util.Map;

/** Reads what breakerd's answers need of JSON: the members of an object. Nested values are checked, but not kept. */
final class Json {
    private static final int MAX_DEPTH = 64;
    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** The object's strings, Booleans and Doubles by name; other values are null. null if the text is no JSON object. */
    static Map<String, Object> object(String text) {
        try {
            Json json = new Json(text);
            json.space();
            if (json.peek() != '{') return null;
            Map<String, Object> members = new HashMap<>();
            json.members(members, 0);
            json.space();
            return json.at == text.length() ? members : null;
        } catch (IllegalArgumentException | StringIndexOutOfBoundsException error) {
            return null;
        }
    }

    static String quote(String value) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : value.toCharArray()) {
            if (c == '"' || c == '\\') out.append('\\').append(c);
            else if (c < ' ') out.append(String.format("\\u%04x", (int) c));
            else out.append(c);
        }
        return out.append('"').toString();
    }

    private char peek() {
        return text.charAt(at);
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
    }

    private boolean skip(char c) {
        space();
        if (peek() != c) return false;
        at++;
        space();
        return true;
    }

    private void expect(char c) {
        if (!skip(c)) throw new IllegalArgumentException();
    }

    private void members(Map<String, Object> into, int depth) {
        expect('{');
        if (skip('}')) return;
        do {
            String name = string();
            expect(':');
            Object value = value(depth + 1);
            if (into != null) into.put(name, value);
        } while (skip(','));
        expect('}');
    }

    private Object value(int depth) {
        if (depth > MAX_DEPTH) throw new IllegalArgumentException();
        switch (peek()) {
            case '"':
                return string();
            case '{':
                members(null, depth);
                return null;
            case '[':
                expect('[');
                if (skip(']')) return null;
                do value(depth + 1);
                while (skip(','));
                expect(']');
                return null;
            default:
                int from = at;
                while (at < text.length() && " \t\r\n,]}".indexOf(peek()) < 0) at++;
                String word = text.substring(from, at);
                return switch (word) {
                    case "true" -> true;
                    case "false" -> false;
                    case "null" -> null;
                    default -> Double.valueOf(word);
                };
        }
    }

    private String string() {
        if (peek() != '"') throw new IllegalArgumentException();
        StringBuilder out = new StringBuilder();
        for (at++; peek() != '"'; at++) {
            if (peek() != '\\') {
                out.append(peek());
                continue;
            }
            char c = text.charAt(++at);
            int escape = "\"\\/bfnrt".indexOf(c);
            if (c == 'u') {
                out.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16));
                at += 4;
            } else if (escape < 0) {
                throw new IllegalArgumentException();
            } else {
                out.append("\"\\/\b\f\n\r\t".charAt(escape));
            }
        }
        at++;
        return out.toString();
    }
}
