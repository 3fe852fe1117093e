// The program through which test_clients.py drives the Go client; see driver.py.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"breakerd"
)

var (
	client   *breakerd.Client
	lock     sync.Mutex
	messages []string
)

func empty(word string) string {
	if word == "-" {
		return ""
	}
	return word
}

func dash(word string) string {
	if word == "" {
		return "-"
	}
	return word
}

func outcome(word string) breakerd.Outcome {
	if n, err := strconv.Atoi(word); err == nil {
		return breakerd.Status(n)
	}
	return map[string]breakerd.Outcome{"success": breakerd.Success, "failure": breakerd.Failure,
		"ignored": breakerd.Ignored}[word]
}

func make_(words []string) string {
	ms := func(word string) time.Duration {
		n, _ := strconv.Atoi(word)
		if n == 0 && word == "0" {
			return -1 // the Go client takes 0 for the default
		}
		return time.Duration(n) * time.Millisecond
	}
	messages = nil
	made, err := breakerd.New(breakerd.Options{BaseURL: empty(words[0]), Token: empty(words[1]), Timeout: ms(words[2]),
		RetryAfterTrouble: max(ms(words[3])), Log: func(m string) {
			lock.Lock()
			defer lock.Unlock()
			messages = append(messages, m)
		}})
	if err != nil {
		return "refused: " + err.Error()
	}
	client = made
	return "made"
}

// The Go client takes 0 for the default: a pause of 1 ns stands for the tests' 0.
func max(d time.Duration) time.Duration {
	if d == -1 {
		return 1
	}
	return d
}

func acquire(key string) string {
	d := client.Acquire(context.Background(), key)
	allowed, answered := "refused", "answered"
	if d.Allowed {
		allowed = "allowed"
	}
	if d.Unreachable {
		answered = "unreachable"
	}
	return fmt.Sprint(allowed, " ", dash(d.Permit), " ", dash(d.State), " ", dash(d.Reason), " ",
		d.RetryAfter.Milliseconds(), " ", answered)
}

func report(words []string) string {
	duration := time.Duration(-1)
	if ms, err := strconv.ParseFloat(words[3], 64); err == nil {
		duration = time.Duration(ms * float64(time.Millisecond))
	}
	if client.Report(words[0], empty(words[1]), outcome(words[2]), duration) {
		return "counted"
	}
	return "not counted"
}

func run(key, what string) string {
	failed := errors.New("failed")
	result, err := breakerd.Execute(context.Background(), client, key, func(_ context.Context, call *breakerd.Call) (string, error) {
		switch what {
		case "fail":
			return "", failed
		case "cancel":
			return "", fmt.Errorf("the caller has left: %w", context.Canceled)
		case "ok":
		default:
			call.Outcome = outcome(what)
		}
		return "passed", nil
	})
	var refused *breakerd.CircuitOpen
	if errors.As(err, &refused) {
		return fmt.Sprintf("refused %s %d", refused.Reason, refused.RetryAfter.Milliseconds())
	} else if err == failed {
		return "failed"
	} else if err != nil {
		return "cancelled"
	}
	return result
}

func impatient(key string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if client.Acquire(ctx, key).Unreachable && ctx.Err() != nil {
		return "given up"
	}
	return "answered"
}

func many(n int, key string, threads int) string {
	var passed, waited atomic.Int64
	var group sync.WaitGroup
	for t := 0; t < threads; t++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < n/threads; i++ {
				began := time.Now()
				if run(key, "ok") == "passed" {
					passed.Add(1)
				}
				if time.Since(began) >= 250*time.Millisecond {
					waited.Add(1)
				}
			}
		}()
	}
	group.Wait()
	return fmt.Sprintf("%d passed (%d waited)", passed.Load(), waited.Load())
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Split(lines.Text(), "\t")
		switch words[0] {
		case "new":
			fmt.Println(make_(words[1:]))
		case "acquire":
			fmt.Println(acquire(words[1]))
		case "report":
			fmt.Println(report(words[1:]))
		case "run":
			fmt.Println(run(words[1], words[2]))
		case "impatient":
			fmt.Println(impatient(words[1]))
		case "many":
			n, _ := strconv.Atoi(words[1])
			threads, _ := strconv.Atoi(words[3])
			fmt.Println(many(n, words[2], threads))
		case "log":
			lock.Lock()
			last := ""
			if len(messages) > 0 {
				last = messages[len(messages)-1]
			}
			fmt.Println(len(messages), last)
			lock.Unlock()
		}
	}
}
