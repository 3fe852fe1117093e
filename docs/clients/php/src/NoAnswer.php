<?php

declare(strict_types=1);

namespace Breakerd;

/** breakerd did not answer, or not as breakerd does. pause: requests pass for a while without asking it.
 *  @internal */
final class NoAnswer extends \Exception
{
    public function __construct(string $message, public readonly bool $pause = true)
    {
        parent::__construct($message);
    }
}
