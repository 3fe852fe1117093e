<?php

declare(strict_types=1);

namespace Breakerd;

/** The pause after trouble. With APCu it holds for all processes that share its memory, as those of PHP-FPM do; else for
 *  this object. Times are of the monotonic clock, in nanoseconds.
 *  @internal */
final class Pause
{
    private int $retryAt = 0; // the end of the pause; 0: no trouble
    private int $logAt = 0;
    private bool $shared;

    public function __construct(private string $name, private int $pauseNs, private int $timeoutNs)
    {
        $this->shared = function_exists('apcu_enabled') && apcu_enabled();
    }

    /** False in the pause. After it one request may ask, and the others pass until it has its answer. */
    public function mayAsk(): bool
    {
        $now = hrtime(true);
        $due = $this->shared ? (int)apcu_fetch("$this->name:retry") : $this->retryAt;
        if ($due === 0 || $now < $due) {
            return $due === 0;
        }
        $lease = $now + max($this->pauseNs, $this->timeoutNs);
        if ($this->shared) {
            return apcu_cas("$this->name:retry", $due, $lease);
        }
        $this->retryAt = $lease;
        return true;
    }

    public function answered(): void
    {
        if ($this->shared && apcu_exists("$this->name:retry")) {
            apcu_delete("$this->name:retry");
        }
        $this->retryAt = 0;
    }

    public function begin(): void
    {
        $this->retryAt = hrtime(true) + $this->pauseNs;
        if ($this->shared) {
            apcu_store("$this->name:retry", $this->retryAt);
        }
    }

    /** Whether a message may be logged: one each $interval nanoseconds. */
    public function mayLog(int $interval): bool
    {
        $now = hrtime(true);
        if ($this->shared) {
            return apcu_add("$this->name:log", 1, intdiv($interval, 1_000_000_000));
        }
        if ($now < $this->logAt) {
            return false;
        }
        $this->logAt = $now + $interval;
        return true;
    }
}
