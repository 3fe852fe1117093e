<?php
// For projects without Composer: require this file.

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    if (preg_match('/^Breakerd\\\\(\w+)$/', $class, $match) && is_file(__DIR__ . "/$match[1].php")) {
        require __DIR__ . "/$match[1].php";
    }
});
