// Package breakerd asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and reports the
// outcome after it. Go 1.19, standard library.
//
//	client, err := breakerd.New(breakerd.Options{}) // http://127.0.0.1:8747; one for all goroutines
//
//	body, err := breakerd.Execute(ctx, client, "orders", func(ctx context.Context, call *breakerd.Call) ([]byte, error) {
//		response, err := askTheUpstream(ctx)
//		...
//		call.Outcome = breakerd.Status(response.StatusCode) // breakerd's policy judges it
//		return body, nil
//	})
//	var refused *breakerd.CircuitOpen
//	if errors.As(err, &refused) { // answer 503 with refused.RetryAfter
//
// When breakerd does not answer, every request passes.
package breakerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Version is the version of the daemon that this client comes with.
const Version = "0.2.0"

const (
	maxAnswer   = 65536 // bytes; breakerd's are a few hundred
	maxIdle     = 64    // kept connections
	logInterval = 10 * time.Second
)

// Options of New; a zero value means the default.
type Options struct {
	BaseURL           string         // http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH; default http://127.0.0.1:8747
	Token             string         // a line of breakerd's token_file; default none
	Timeout           time.Duration  // for a whole exchange; default 300 ms
	RetryAfterTrouble time.Duration  // for this long after breakerd did not answer, requests pass without asking it; default 1 s
	Log               func(m string) // called at most every 10 s; default log.Print
}

// Client may be shared by goroutines.
type Client struct {
	http     *http.Client
	scheme   *url.URL // scheme and host of all requests
	prefix   string   // of the path, escaped
	token    string
	timeout  time.Duration
	pause    time.Duration
	log      func(string)
	began    time.Time    // stamps below are nanoseconds since then, never 0
	retryAt  atomic.Int64 // the end of the pause after trouble; 0: no trouble
	nextLog  atomic.Int64
	shutdown func()
}

// Decision is the answer to Acquire.
type Decision struct {
	Allowed     bool
	Permit      string        // for the report
	State       string        // closed, open, half-open; empty if breakerd did not answer
	Reason      string        // closed, probe, open, probing, forced-open, forced-closed, observed; unreachable
	RetryAfter  time.Duration // 0 if allowed
	Unreachable bool          // breakerd did not decide, so the request may pass
}

// Outcome of a request: Success, Failure, Ignored, or Status(n).
type Outcome struct {
	word   string
	status int
}

var (
	Success = Outcome{word: "success"}
	Failure = Outcome{word: "failure"}
	Ignored = Outcome{word: "ignored"}
)

// Status leaves the outcome to breakerd's policy, which judges the upstream's status; 0: no answer came.
func Status(n int) Outcome { return Outcome{word: "status", status: n} }

// CircuitOpen is the error of Execute when breakerd refused the request.
type CircuitOpen struct {
	Key string
	Decision
}

func (e *CircuitOpen) Error() string {
	return fmt.Sprintf("circuit %q is %s: ask again in %v", e.Key, e.Reason, e.RetryAfter)
}

const pathText = `(?:[A-Za-z0-9_.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*`

var (
	tcpURL  = regexp.MustCompile(`^http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?((?:/` + pathText + `)*)$`)
	unixURL = regexp.MustCompile(`^http\+unix://(%2[Ff]` + pathText + `)((?:/` + pathText + `)*)$`)
	tokens  = regexp.MustCompile(`^[\x21-\x7e]*$`)
)

// New returns a Client, or an error if an option is invalid.
func New(o Options) (*Client, error) {
	if o.BaseURL == "" {
		o.BaseURL = "http://127.0.0.1:8747"
	}
	if o.Timeout == 0 {
		o.Timeout = 300 * time.Millisecond
	}
	if o.RetryAfterTrouble == 0 {
		o.RetryAfterTrouble = time.Second
	}
	if o.Log == nil {
		o.Log = func(m string) { log.Print(m) }
	}
	if !tokens.MatchString(o.Token) {
		return nil, errors.New("Token must be printable ASCII without spaces")
	}
	if o.Timeout < 0 || o.RetryAfterTrouble < 0 {
		return nil, errors.New("Timeout and RetryAfterTrouble must not be below 0")
	}
	host, socket, prefix, err := parseBase(o.BaseURL)
	if err != nil {
		return nil, err
	}
	dial := (&net.Dialer{}).DialContext
	transport := &http.Transport{MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: 30 * time.Second,
		DisableCompression: true, MaxResponseHeaderBytes: maxAnswer,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if socket != "" {
				return dial(ctx, "unix", socket)
			}
			return dial(ctx, network, address)
		}}
	return &Client{http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}, scheme: &url.URL{Scheme: "http", Host: host}, prefix: strings.TrimRight(prefix, "/") + "/v1/circuits/",
		token: o.Token, timeout: o.Timeout, pause: o.RetryAfterTrouble, log: o.Log,
		began: time.Now().Add(-time.Second), shutdown: transport.CloseIdleConnections}, nil
}

func parseBase(base string) (host, socket, prefix string, err error) {
	err = errors.New("BaseURL must be http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH " +
		"(https is not spoken: breakerd has no TLS)")
	if m := tcpURL.FindStringSubmatch(base); m != nil {
		if port, _ := strconv.Atoi(m[2]); m[2] != "" && (port < 1 || port > 65535) {
			return "", "", "", err
		}
		host, _, _ := strings.Cut(strings.TrimPrefix(base, "http://"), "/")
		return host, "", m[3], nil
	}
	if m := unixURL.FindStringSubmatch(base); m != nil {
		socket, _ = url.PathUnescape(m[1])
		prefix = m[2]
	} else if strings.HasPrefix(base, "unix:/") {
		socket = strings.TrimPrefix(base, "unix:")
	}
	if len(socket) < 2 || len(socket) > 107 || strings.IndexFunc(socket, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		return "", "", "", err
	}
	return "localhost", socket, prefix, nil
}

// Close closes the kept connections.
func (c *Client) Close() { c.shutdown() }

// Acquire asks whether a request may go to the upstream. If ctx ends before the answer, it may.
func (c *Client) Acquire(ctx context.Context, key string) Decision {
	var answer struct {
		Allowed      *bool           `json:"allowed"`
		Permit       json.RawMessage `json:"permit"`
		State        json.RawMessage `json:"state"`
		Reason       json.RawMessage `json:"reason"`
		RetryAfterMs json.RawMessage `json:"retryAfterMs"`
	}
	if !c.ask(ctx, key, "acquire", nil, func(body []byte) bool {
		return json.Unmarshal(body, &answer) == nil && answer.Allowed != nil
	}) {
		return Decision{Allowed: true, Reason: "unreachable", Unreachable: true}
	}
	// Members of another type count as absent.
	text := func(raw json.RawMessage) (s string) {
		_ = json.Unmarshal(raw, &s)
		return s
	}
	var ms float64
	_ = json.Unmarshal(answer.RetryAfterMs, &ms)
	return Decision{Allowed: *answer.Allowed, Permit: text(answer.Permit), State: text(answer.State),
		Reason: text(answer.Reason), RetryAfter: time.Duration(ms) * time.Millisecond}
}

// Report reports the outcome of a request; a duration below 0 is left out. True if breakerd counted it. It takes no
// context, because a request whose client has left is reported, too.
func (c *Client) Report(key, permit string, outcome Outcome, duration time.Duration) bool {
	report := map[string]any{}
	if permit != "" {
		report["permit"] = permit
	}
	if outcome.word == "status" {
		report["status"] = outcome.status
	} else {
		report["outcome"] = outcome.word
	}
	if duration >= 0 {
		report["durationMs"] = float64(duration.Microseconds()) / 1000
	}
	var answer struct {
		Counted *bool `json:"counted"`
	}
	body, err := json.Marshal(report)
	return err == nil && c.ask(context.Background(), key, "report", body, func(body []byte) bool {
		return json.Unmarshal(body, &answer) == nil && answer.Counted != nil
	}) && *answer.Counted
}

// Call is a request under way. If Outcome is not set, an error is a failure, context.Canceled is ignored, and no error
// is a success.
type Call struct {
	Decision Decision
	Outcome  Outcome
}

// Execute runs f between Acquire and Report. The error is a *CircuitOpen if f did not run, else f's.
func Execute[T any](ctx context.Context, c *Client, key string, f func(context.Context, *Call) (T, error)) (result T, err error) {
	call := &Call{Decision: c.Acquire(ctx, key)}
	if !call.Decision.Allowed {
		return result, &CircuitOpen{key, call.Decision}
	}
	began, panicked := time.Now(), true
	defer func() {
		if call.Decision.Unreachable {
			return
		}
		outcome := call.Outcome
		switch {
		case outcome != Outcome{}:
		case panicked || err != nil && !errors.Is(err, context.Canceled):
			outcome = Failure
		case err != nil:
			outcome = Ignored
		default:
			outcome = Success
		}
		c.Report(key, call.Decision.Permit, outcome, time.Since(began))
	}()
	result, err = f(ctx, call)
	panicked = false
	return result, err
}

// ask makes one exchange; false without an answer that read accepts.
func (c *Client) ask(caller context.Context, key, verb string, body []byte, read func([]byte) bool) bool {
	if !c.mayAsk() {
		return false
	}
	ctx, cancel := context.WithTimeout(caller, c.timeout)
	defer cancel()
	status, answer, err := c.exchange(ctx, key, verb, body)
	switch {
	case err != nil && caller.Err() != nil:
		return false // the caller's context has ended: no trouble with breakerd
	case err != nil && ctx.Err() != nil:
		c.trouble("no answer in time", true)
	case err != nil:
		c.trouble(err.Error(), true)
	case status != http.StatusOK:
		// A 504 took the whole store_timeout, and the next would too: pause. Other errors come at once or concern
		// one circuit.
		var problem struct{ Detail string }
		_ = json.Unmarshal(answer, &problem)
		c.trouble(strings.TrimSpace(fmt.Sprintf("%d %.500s", status, problem.Detail)), status == http.StatusGatewayTimeout)
	case !read(answer):
		c.trouble("this was answered by something that is not breakerd", true)
	default:
		c.retryAt.Store(0)
		return true
	}
	return false
}

func (c *Client) exchange(ctx context.Context, key, verb string, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme.String(), strings.NewReader(string(body)))
	if err != nil {
		return 0, nil, err
	}
	// A RawPath is sent unchanged, with its dots and escapes.
	request.URL.RawPath = c.prefix + strings.ReplaceAll(url.QueryEscape(key), "+", "%20") + "/" + verb
	if request.URL.Path, err = url.PathUnescape(request.URL.RawPath); err != nil {
		return 0, nil, err
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	return response.StatusCode, answer, err
}

func (c *Client) now() int64 { return int64(time.Since(c.began)) }

// mayAsk is false in the pause after trouble. After the pause one request may ask, and the others pass until it has its
// answer.
func (c *Client) mayAsk() bool {
	due, now := c.retryAt.Load(), c.now()
	if due == 0 {
		return true
	}
	lease := c.pause
	if lease < c.timeout {
		lease = c.timeout
	}
	return now >= due && c.retryAt.CompareAndSwap(due, now+int64(lease))
}

func (c *Client) trouble(message string, pause bool) {
	now, due := c.now(), int64(0)
	if pause {
		due = now + int64(c.pause)
	}
	c.retryAt.Store(due)
	if next := c.nextLog.Load(); now >= next && c.nextLog.CompareAndSwap(next, now+int64(logInterval)) {
		c.log("breakerd: " + message + ": requests pass")
	}
}
