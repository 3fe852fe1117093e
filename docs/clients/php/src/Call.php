<?php

declare(strict_types=1);

namespace Breakerd;

/** A request under way. outcome (success, failure, ignored) is used rather than status; status 0: no answer came. */
final class Call
{
    public ?int $status = null;
    public ?string $outcome = null;

    public function __construct(public readonly Decision $decision)
    {
    }
}
