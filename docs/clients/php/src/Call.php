<?php

declare(strict_types=1);

namespace Breakerd;

/** A request under way. Outcome (success, failure, ignored) stands before status; status 0: no answer came. */
final class Call
{
    public ?int $status = null;
    public ?string $outcome = null;

    public function __construct(public readonly Decision $decision)
    {
    }
}
