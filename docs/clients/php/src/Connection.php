<?php

declare(strict_types=1);

namespace Breakerd;

/** One kept connection, and HTTP/1.1 over it. An exchange has one time limit, and nothing is sent twice.
 *  @internal */
final class Connection
{
    private const MAX_ANSWER = 65536; // bytes; breakerd's are a few hundred

    /** @var resource|null */
    private $stream = null;
    private int $deadline = 0;

    public function __construct(private string $address, private int $timeoutNs)
    {
    }

    /** @return array{int, string} status and body */
    public function exchange(string $request): array
    {
        $this->deadline = hrtime(true) + $this->timeoutNs;
        $whole = false;
        try {
            $this->open();
            $this->send($request);
            [$status, $body, $keep] = $this->receive();
            $whole = $keep;
            return [$status, $body];
        } finally {
            if (!$whole && $this->stream) {
                fclose($this->stream);
                $this->stream = null;
            }
        }
    }

    private function open(): void
    {
        // A kept connection that is readable or at its end has been closed by breakerd: a request on it would be lost.
        if ($this->stream && !$this->wait(false, 0)) {
            return;
        }
        if ($this->stream) {
            fclose($this->stream);
        }
        $context = stream_context_create(['socket' => ['tcp_nodelay' => true]]);
        $stream = @stream_socket_client($this->address, $code, $message, $this->left() / 1e9, STREAM_CLIENT_CONNECT, $context);
        $this->stream = $stream ?: null;
        if (!$this->stream) {
            throw new NoAnswer($message ?: 'no connection');
        }
        stream_set_blocking($this->stream, false);
        stream_set_read_buffer($this->stream, 0);
    }

    private function send(string $data): void
    {
        while ($data !== '') {
            if (!$this->wait(true, $this->left())) {
                throw new NoAnswer('no answer in time');
            }
            $n = @fwrite($this->stream, $data);
            if (!$n) {
                throw new NoAnswer('the connection ended');
            }
            $data = substr($data, $n);
        }
    }

    /** @return array{int, string, bool} status, body, whether the connection may be kept */
    private function receive(): array
    {
        $data = '';
        do {
            if (!$this->wait(false, $this->left())) {
                throw new NoAnswer('no answer in time');
            }
            $piece = @fread($this->stream, 16384);
            if ($piece === false || $piece === '') {
                throw new NoAnswer($data === '' ? 'the connection ended without an answer' : 'the connection ended amid an answer');
            }
            $data .= $piece;
            if (strlen($data) > self::MAX_ANSWER) {
                throw new NoAnswer('the answer is too long');
            }
            $answer = self::parse($data);
        } while ($answer === null);
        return $answer;
    }

    /** null if the answer is not complete yet. */
    private static function parse(string $data): ?array
    {
        if (strncmp($data, 'HTTP/1.', min(7, strlen($data))) !== 0) {
            throw new NoAnswer('this is no HTTP');
        }
        $parts = explode("\r\n\r\n", $data, 2);
        if (count($parts) < 2) {
            return null;
        }
        [$head, $rest] = $parts;
        if (!preg_match('#^HTTP/1\.([01]) ([0-9]{3})#', $head, $line)) {
            throw new NoAnswer('this is no HTTP');
        }
        $keep = $line[1] === '1' && !preg_match('/^Connection:\s*close\s*$/mi', $head);
        if (preg_match('/^Transfer-Encoding:\s*chunked\s*$/mi', $head)) {
            $body = self::unchunk($rest);
            return $body === null ? null : [(int)$line[2], $body, $keep];
        }
        if (!preg_match('/^Content-Length:\s*([0-9]{1,9})\s*$/mi', $head, $length)) {
            throw new NoAnswer('this is no HTTP');
        }
        $length = (int)$length[1];
        return strlen($rest) < $length ? null : [(int)$line[2], substr($rest, 0, $length), $keep && strlen($rest) === $length];
    }

    private static function unchunk(string $data): ?string
    {
        $body = '';
        while (preg_match('/^([0-9a-fA-F]{1,7})[^\r\n]*\r\n/', $data, $size)) {
            $length = (int)hexdec($size[1]);
            $data = substr($data, strlen($size[0]));
            if ($length === 0) {
                return str_starts_with($data, "\r\n") ? $body : null;
            }
            if (strlen($data) < $length + 2) {
                return null;
            }
            $body .= substr($data, 0, $length);
            $data = substr($data, $length + 2);
        }
        if (str_contains($data, "\r\n")) {
            throw new NoAnswer('this is no HTTP');
        }
        return null;
    }

    /** Whether the stream becomes writable ($write) or readable within $ns nanoseconds. */
    private function wait(bool $write, int $ns): bool
    {
        $read = $write ? [] : [$this->stream];
        $written = $write ? [$this->stream] : [];
        $none = [];
        return (bool)@stream_select($read, $written, $none, intdiv($ns, 1_000_000_000), intdiv($ns % 1_000_000_000, 1000));
    }

    private function left(): int
    {
        $left = $this->deadline - hrtime(true);
        if ($left <= 0) {
            throw new NoAnswer('no answer in time');
        }
        return $left;
    }
}
