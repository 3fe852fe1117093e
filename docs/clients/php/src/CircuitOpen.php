<?php

declare(strict_types=1);

namespace Breakerd;

/** breakerd refused the request: do not send it to the upstream. */
final class CircuitOpen extends \RuntimeException
{
    public function __construct(public readonly string $key, public readonly Decision $decision)
    {
        parent::__construct("circuit \"$key\" is $decision->reason: ask again in $decision->retryAfterMs ms");
    }
}
