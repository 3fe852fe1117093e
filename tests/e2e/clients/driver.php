<?php
// The program through which test_clients.py drives the PHP client: driver.php AUTOLOAD; see driver.py.

declare(strict_types=1);

require $argv[1];

final class Failed extends Exception
{
}

$messages = [];
$client = null;
$empty = static fn(string $word) => $word === '-' ? '' : $word;

function shown(Breakerd\Decision $d): string
{
    return implode(' ', [$d->allowed ? 'allowed' : 'refused', $d->permit ?: '-', $d->state ?: '-', $d->reason ?: '-',
        $d->retryAfterMs, $d->unreachable ? 'unreachable' : 'answered']);
}

function run_one(Breakerd\Client $client, string $key, string $what): string
{
    try {
        return $client->run($key, function (Breakerd\Call $call) use ($what) {
            if ($what === 'fail') {
                throw new Failed();
            } elseif ($what === 'ignored') {
                $call->outcome = $what;
            } elseif ($what !== 'ok') {
                $call->status = (int)$what;
            }
            return 'passed';
        });
    } catch (Failed) {
        return 'failed';
    } catch (Breakerd\CircuitOpen $refused) {
        return "refused {$refused->decision->reason} {$refused->decision->retryAfterMs}";
    }
}

function many(Breakerd\Client $client, int $n, string $key): string
{
    $passed = $waited = 0;
    for ($i = 0; $i < $n; $i++) {
        $began = hrtime(true);
        $passed += run_one($client, $key, 'ok') === 'passed' ? 1 : 0;
        $waited += hrtime(true) - $began >= 250_000_000 ? 1 : 0;
    }
    return "$passed passed ($waited waited)";
}

while (($line = fgets(STDIN)) !== false) {
    $words = explode("\t", rtrim($line, "\n"));
    switch ($words[0]) {
        case 'new':
            $messages = [];
            $names = ['baseUrl' => $words[1], 'token' => $words[2], 'timeoutMs' => $words[3], 'retryAfterTroubleMs' => $words[4]];
            $settings = array_filter($names, static fn(string $word) => $word !== '-');
            foreach (['timeoutMs', 'retryAfterTroubleMs'] as $name) {
                if (isset($settings[$name])) {
                    $settings[$name] = (int)$settings[$name];
                }
            }
            $settings['log'] = static function (string $message) use (&$messages): void {
                $messages[] = $message;
            };
            try {
                $client = new Breakerd\Client(...$settings);
                echo "made\n";
            } catch (InvalidArgumentException $error) {
                echo "refused: {$error->getMessage()}\n";
            }
            break;
        case 'acquire':
            echo shown($client->acquire($words[1])), "\n";
            break;
        case 'report':
            $judged = ctype_digit($words[3]) ? ['status' => (int)$words[3]] : ['outcome' => $words[3]];
            $counted = $client->report($words[1], $empty($words[2]), ...$judged,
                durationMs: $words[4] === '-' ? null : (float)$words[4]);
            echo $counted ? "counted\n" : "not counted\n";
            break;
        case 'run':
            echo run_one($client, $words[1], $words[2]), "\n";
            break;
        case 'many':
            echo many($client, (int)$words[1], $words[2]), "\n";
            break;
        default:
            echo count($messages), ' ', strtr((string)end($messages), "\n", ' '), "\n";
    }
}
