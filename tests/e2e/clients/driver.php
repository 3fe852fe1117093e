<?php
require __DIR__ . '/../../../docs/clients/breaker.php';

[, $url, $key, $threshold, $openMs, $token, $timeoutMs] = $argv;
$breaker = new Breaker($url, $key, (int)$threshold, (int)$openMs, (int)$timeoutMs, $token);
while (($line = fgets(STDIN)) !== false) {
    $words = explode(' ', trim($line));
    if ($words[0] === 'enter') {
        echo $breaker->enter(), "\n";
    } else {
        $breaker->leave($words[1], $words[2] === 'ok');
        echo "done\n";
    }
}
