<?php
/*
 * A circuit breaker whose state many gateways share through breakerd. PHP 8.0 with ext-curl.
 *
 *     $breaker = new Breaker('http://127.0.0.1:8747', 'orders', threshold: 5, openMs: 30000);
 *
 *     $permit = $breaker->enter();
 *     if ($permit === Breaker::OPEN) { http_response_code(503); exit; }
 *     $ok = false;
 *     try { $ok = ask_the_upstream(); } finally { $breaker->leave($permit, $ok); }
 *
 * When breakerd does not answer, every request is let through. The connection is kept for as long
 * as the object: under PHP-FPM for one request, in a long-lived worker for all of them.
 */

declare(strict_types=1);

final class Breaker
{
    /** CLOSED: go. HALF_OPEN: go, you are the probe. UNKNOWN: go, breakerd did not answer. OPEN: do not go. */
    public const CLOSED = 'closed';
    public const HALF_OPEN = 'half-open';
    public const UNKNOWN = 'unknown';
    public const OPEN = 'open';

    private string $url;
    private \CurlHandle $curl;
    private bool $answering = true;

    public function __construct(string $base, string $key, private int $threshold = 5,
        private int $openMs = 30000, int $timeoutMs = 300, string $token = '')
    {
        $this->url = $base . '/v1/circuits/' . rawurlencode($key);
        $this->curl = curl_init();
        curl_setopt_array($this->curl, [
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT_MS => $timeoutMs, // for the whole exchange
            CURLOPT_NOSIGNAL => true,         // else a time-out under a second may not work
            CURLOPT_PATH_AS_IS => true,       // the key may be ".."
            CURLOPT_PROXY => '',              // whatever http_proxy says
            CURLOPT_HTTPHEADER => $token === '' ? [] : ["Authorization: Bearer $token"],
        ]);
    }

    public function enter(): string
    {
        $circuit = $this->ask('');
        if (!$circuit) {
            return self::UNKNOWN;
        }
        if ($circuit['state'] === self::CLOSED) {
            return self::CLOSED;
        }
        if (microtime(true) * 1000 - $circuit['lastStateChange'] < $this->openMs) {
            return self::OPEN;
        }
        if ($circuit['state'] === self::HALF_OPEN) { // whoever probed never came back
            $this->transition(self::HALF_OPEN, self::OPEN);
            return self::OPEN;
        }
        $won = $this->transition(self::OPEN, self::HALF_OPEN); // of all gateways, one
        return $won === null ? self::UNKNOWN : ($won ? self::HALF_OPEN : self::OPEN);
    }

    /** Says how the request went that enter() gave the permit for. */
    public function leave(string $permit, bool $ok): void
    {
        if ($permit !== self::CLOSED && $permit !== self::HALF_OPEN) {
            return;
        }
        $circuit = $this->ask($ok ? '/success' : '/failure', '');
        if ($permit === self::HALF_OPEN || (!$ok && $circuit && $circuit['failureCount'] >= $this->threshold)) {
            $this->transition($permit, $ok ? self::CLOSED : self::OPEN);
        }
    }

    private function transition(string $from, string $to): array|false|null
    {
        return $this->ask('/transition', json_encode(['from' => $from, 'to' => $to]));
    }

    /** The circuit; false if it was no longer in the state `from`; null without an answer. Without a body it is a GET. */
    private function ask(string $verb, ?string $body = null): array|false|null
    {
        curl_setopt($this->curl, CURLOPT_URL, $this->url . $verb);
        curl_setopt_array($this->curl, $body === null ? [CURLOPT_HTTPGET => true] : [CURLOPT_POSTFIELDS => $body]);
        $text = curl_exec($this->curl);
        $status = curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE);
        $circuit = is_string($text) ? json_decode($text, true) : null;
        $answered = is_array($circuit) && ($status === 200 || $status === 409);
        if (!$answered && $this->answering) { // once, not for each request
            error_log('breakerd: ' . (curl_error($this->curl) ?: "$status $text") . ': requests are let through');
        }
        $this->answering = $answered;
        return !$answered ? null : ($status === 200 ? $circuit : false);
    }
}
