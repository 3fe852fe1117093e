<?php

declare(strict_types=1);

namespace Breakerd;

/**
 * Asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and reports the outcome after it.
 * PHP 8.1, no extension needed.
 *
 *     $client = new Breakerd\Client();                     // http://127.0.0.1:8747
 *
 *     try {
 *         $body = $client->run('orders', function (Breakerd\Call $call) {
 *             $response = ask_the_upstream();
 *             $call->status = $response->status;           // breakerd's policy judges it
 *             return $response->body;
 *         });
 *     } catch (Breakerd\CircuitOpen $refused) {
 *         http_response_code(503);                         // $refused->decision->retryAfterMs
 *     }
 *
 * When breakerd does not answer, every request passes. The object keeps its connection: under PHP-FPM for one request,
 * in a long-lived worker for all of them.
 */
final class Client
{
    private const LOG_INTERVAL_NS = 10_000_000_000;
    private const TEXT = '(?:[A-Za-z0-9_.~!$&\'()*+,;=:@-]|%[0-9A-Fa-f]{2})';

    private Connection $connection;
    private Pause $pause;
    private string $prefix;
    private string $head;
    /** @var callable(string): void */
    private $log;

    /**
     * $baseUrl: http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH. $timeoutMs is for a whole exchange.
     * For $retryAfterTroubleMs after breakerd did not answer, requests pass without asking it. $log is called with a
     * text, at most every 10 s; default: error_log. InvalidArgumentException if a setting is invalid.
     */
    public function __construct(
        string $baseUrl = 'http://127.0.0.1:8747',
        string $token = '',
        int $timeoutMs = 300,
        int $retryAfterTroubleMs = 1000,
        ?callable $log = null,
    ) {
        [$address, $host, $prefix] = self::parseBase($baseUrl);
        if (!preg_match('/^[\x21-\x7e]*$/D', $token)) {
            throw new \InvalidArgumentException('token must be printable ASCII without spaces');
        }
        if ($timeoutMs <= 0 || $retryAfterTroubleMs < 0) {
            throw new \InvalidArgumentException('timeoutMs must be above 0, retryAfterTroubleMs not below 0');
        }
        $this->prefix = rtrim($prefix, '/') . '/v1/circuits/';
        $this->head = "Host: $host\r\n" . ($token === '' ? '' : "Authorization: Bearer $token\r\n");
        $this->connection = new Connection($address, $timeoutMs * 1_000_000);
        $this->pause = new Pause("breakerd:$baseUrl", $retryAfterTroubleMs * 1_000_000, $timeoutMs * 1_000_000);
        $this->log = $log ?? static fn(string $message) => error_log($message);
    }

    /** Whether a request may go to the upstream. Throws nothing because of breakerd. */
    public function acquire(string $key): Decision
    {
        $answer = $this->ask($key, 'acquire', '', 'allowed');
        if ($answer === null) {
            return new Decision();
        }
        $text = static fn(string $name) => is_string($answer[$name] ?? null) ? $answer[$name] : '';
        $after = $answer['retryAfterMs'] ?? 0;
        return new Decision($answer['allowed'], $text('permit'), $text('state'), $text('reason'),
            is_int($after) || is_float($after) ? (int)$after : 0, false);
    }

    /** Reports a request's $outcome (success, failure, ignored), or the upstream's $status (0: no answer came). True if
     *  breakerd counted it. */
    public function report(string $key, string $permit = '', ?string $outcome = null, ?int $status = null,
        ?float $durationMs = null): bool
    {
        $body = [];
        if ($permit !== '') {
            $body['permit'] = $permit;
        }
        $body += $outcome !== null ? ['outcome' => $outcome] : ['status' => $status ?? 0];
        if ($durationMs !== null) {
            $body['durationMs'] = round(max($durationMs, 0), 3);
        }
        $json = json_encode($body, JSON_INVALID_UTF8_SUBSTITUTE);
        return ($this->ask($key, 'report', $json, 'counted') ?? [])['counted'] ?? false;
    }

    /**
     * Runs a function between acquire and report. Throws CircuitOpen if it may not run. An exception is a failure and no
     * exception a success, unless $call->outcome or $call->status is set.
     *
     * @template T
     * @param callable(Call): T $function
     * @return T
     */
    public function run(string $key, callable $function): mixed
    {
        $call = new Call($this->acquire($key));
        if (!$call->decision->allowed) {
            throw new CircuitOpen($key, $call->decision);
        }
        $began = hrtime(true);
        $outcome = 'failure';
        try {
            $result = $function($call);
            $outcome = 'success';
            return $result;
        } finally {
            $told = $call->outcome !== null || $call->status !== null;
            if (!$call->decision->unreachable) {
                $this->report($key, $call->decision->permit, $told ? $call->outcome : $outcome, $call->status,
                    (hrtime(true) - $began) / 1e6);
            }
        }
    }

    /** @return array{string, string, string} address for stream_socket_client, host, path */
    private static function parseBase(string $url): array
    {
        $path = '((?:/' . self::TEXT . '*)*)';
        if (preg_match("#^http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$path$#D", $url, $match)) {
            $port = $match[2] === '' ? 80 : (int)$match[2];
            if ($port >= 1 && $port <= 65535) {
                return ["tcp://$match[1]:$port", explode('/', substr($url, 7))[0], $match[3]];
            }
        }
        $socket = str_starts_with($url, 'unix:/') ? substr($url, 5) : '';
        if (preg_match('#^http\+unix://(%2[Ff]' . self::TEXT . "+)$path$#D", $url, $match)) {
            $socket = rawurldecode($match[1]);
        }
        if (strlen($socket) < 2 || strlen($socket) > 107 || preg_match('/[\x00-\x1f\x7f]/', $socket)) {
            throw new \InvalidArgumentException('baseUrl must be http://HOST[:PORT][/PATH], unix:/PATH or '
                . 'http+unix://%2FPATH (https is not spoken: breakerd has no TLS)');
        }
        return ["unix://$socket", 'localhost', $match[2] ?? ''];
    }

    /** The answer, which has the boolean member $must; null without such an answer. */
    private function ask(string $key, string $verb, string $body, string $must): ?array
    {
        if (!$this->pause->mayAsk()) {
            return null;
        }
        $target = $this->prefix . rawurlencode($key) . "/$verb";
        try {
            [$status, $text] = $this->connection->exchange(
                "POST $target HTTP/1.1\r\n{$this->head}Content-Length: " . strlen($body) . "\r\n\r\n$body");
            $answer = json_decode($text, true);
            if ($status !== 200) {
                $detail = is_array($answer) && is_string($answer['detail'] ?? null) ? $answer['detail'] : '';
                // A 504 took the whole store_timeout, and the next would too: pause. Other errors come at once or
                // concern one circuit.
                throw new NoAnswer(trim("$status " . substr($detail, 0, 500)), $status === 504);
            }
            if (!is_array($answer) || !is_bool($answer[$must] ?? null)) {
                throw new NoAnswer('this was answered by something that is not breakerd');
            }
            $this->pause->answered();
            return $answer;
        } catch (NoAnswer $error) {
            $error->pause ? $this->pause->begin() : $this->pause->answered();
            $this->say($error->getMessage());
            return null;
        }
    }

    private function say(string $message): void
    {
        if (!$this->pause->mayLog(self::LOG_INTERVAL_NS)) {
            return;
        }
        try {
            ($this->log)("breakerd: $message: requests pass");
        } catch (\Throwable) {
            // An error in the hook must not break a request.
        }
    }
}
