<?php

declare(strict_types=1);

namespace Breakerd;

final class Decision
{
    public function __construct(
        public readonly bool $allowed = true,
        /** For the report; empty if there is none. */
        public readonly string $permit = '',
        /** closed, open, half-open; empty if breakerd did not answer. */
        public readonly string $state = '',
        /** closed, probe, open, probing, forced-open, forced-closed, observed; unreachable. */
        public readonly string $reason = 'unreachable',
        /** 0 if allowed. */
        public readonly int $retryAfterMs = 0,
        /** breakerd did not decide, so the request may pass. */
        public readonly bool $unreachable = true,
    ) {
    }
}
