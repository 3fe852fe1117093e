<?php

declare(strict_types=1);

namespace Breakerd;

/** The pause after trouble. With APCu it holds for all processes that share its memory, as PHP-FPM's do; else for
 *  this object. Stamps are of the monotonic clock, in nanoseconds.
 *  @internal */
final class Pause
{
    private int $retryAt = 0; // not 0: in trouble, the next try is due then
    private int $logAt = 0;
    private bool $shared;

    public function __construct(private string $name, private int $pauseNs, private int $timeoutNs)
    {
        $this->shared = function_exists('apcu_enabled') && apcu_enabled();
    }

    /** False in a pause. Whoever finds it over is the only one to try until the outcome is known. */
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

    /** Whether something may be said; $interval nanoseconds later again. */
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
