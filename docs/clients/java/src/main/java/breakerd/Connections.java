package breakerd;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedSelectorException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;

/** Kept connections, and HTTP/1.1 over them. An exchange has one time limit, and nothing is sent twice. */
final class Connections {
    private static final int MAX_ANSWER = 65_536; // bytes; breakerd's are a few hundred
    private static final int MAX_IDLE = 64; // kept connections

    private final Address address;
    private final ArrayDeque<Connection> idle = new ArrayDeque<>();

    Connections(Address address) {
        this.address = address;
    }

    /** A channel, and the selector that waits for it. */
    private static final class Connection {
        final SocketChannel channel;
        final Selector selector;
        final ByteBuffer buffer = ByteBuffer.allocate(16_384);

        Connection(boolean unix) throws IOException {
            channel = unix ? SocketChannel.open(StandardProtocolFamily.UNIX) : SocketChannel.open();
            try {
                selector = Selector.open();
            } catch (IOException error) {
                channel.close();
                throw error;
            }
            channel.configureBlocking(false);
            if (!unix) channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            channel.register(selector, 0);
        }

        void await(int what, long deadline) throws IOException {
            channel.keyFor(selector).interestOps(what);
            for (;;) {
                long left = deadline - System.nanoTime();
                if (left <= 0) throw new IOException("no answer in time");
                int ready = selector.select(left / 1_000_000 + 1); // rounded up: 0 would wait for ever
                selector.selectedKeys().clear();
                if (ready > 0) return;
                if (Thread.currentThread().isInterrupted()) throw new InterruptedIOException();
            }
        }

        void write(ByteBuffer data, long deadline) throws IOException {
            while (data.hasRemaining()) if (channel.write(data) == 0) await(SelectionKey.OP_WRITE, deadline);
        }

        Response read(long deadline) throws IOException {
            StringBuilder data = new StringBuilder();
            for (;;) {
                await(SelectionKey.OP_READ, deadline);
                int n = channel.read(buffer.clear());
                if (n < 0)
                    throw new IOException("the connection ended " + (data.isEmpty() ? "without an answer" : "amid an answer"));
                data.append(new String(buffer.array(), 0, n, StandardCharsets.ISO_8859_1));
                if (data.length() > MAX_ANSWER) throw new IOException("the answer is too long");
                Response response = Response.parse(data.toString());
                if (response != null) return response;
            }
        }

        /** True if the channel is readable or at its end: breakerd has closed it, and a request on it would be lost. */
        boolean stale() {
            try {
                return channel.read(buffer.clear()) != 0;
            } catch (IOException error) {
                return true;
            }
        }

        void close() {
            try (channel; selector) {
                // Closes both.
            } catch (IOException | ClosedSelectorException error) {
                // Nothing to do: they are closed all the same.
            }
        }
    }

    Response exchange(byte[] request, long timeout) throws IOException {
        long deadline = System.nanoTime() + timeout;
        // Java closes a channel that an interrupted thread uses. So clear the flag for the exchange: a request that was
        // interrupted must still be reported.
        boolean interrupted = Thread.interrupted();
        Connection connection = take();
        boolean keep = false;
        try {
            if (connection == null) connection = connect(deadline);
            connection.write(ByteBuffer.wrap(request), deadline);
            Response response = connection.read(deadline);
            keep = response.keep() && give(connection);
            return response;
        } finally {
            if (!keep && connection != null) connection.close();
            if (interrupted) Thread.currentThread().interrupt();
        }
    }

    private Connection take() {
        for (;;) {
            Connection connection;
            synchronized (idle) {
                connection = idle.pollLast();
            }
            if (connection == null || !connection.stale()) return connection;
            connection.close();
        }
    }

    private boolean give(Connection connection) {
        synchronized (idle) {
            return idle.size() < MAX_IDLE && idle.add(connection);
        }
    }

    private Connection connect(long deadline) throws IOException {
        Connection connection = new Connection(address.socket() != null);
        try {
            if (!connection.channel.connect(address.resolve()))
                do connection.await(SelectionKey.OP_CONNECT, deadline);
                while (!connection.channel.finishConnect());
            return connection;
        } catch (IOException | RuntimeException error) {
            connection.close();
            throw error;
        }
    }

    void close() {
        synchronized (idle) {
            idle.forEach(Connection::close);
            idle.clear();
        }
    }
}
