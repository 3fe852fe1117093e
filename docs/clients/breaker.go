// Package breaker is a circuit breaker whose state many gateways share through breakerd (Go 1.19).
//
//	b := breaker.New("http://127.0.0.1:8747", "orders")
//	if permit := b.Enter(); permit != breaker.Open { // else answer 503
//		b.Leave(permit, askTheUpstream())
//	}
//
// When breakerd does not answer, every request is let through.
package breaker

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// What Enter answers: all but Open mean that the request may go, HalfOpen that it is the probe.
const Closed, HalfOpen, Open, Unknown = "closed", "half-open", "open", "unknown"

// Breaker is one circuit; its members may be set before its first use.
type Breaker struct {
	Threshold int64         // failures that open the circuit
	OpenTime  time.Duration // until a probe
	Client    *http.Client  // its Timeout is for a whole exchange with breakerd
	Token     string        // of breakerd's token_file
	url       string
	silent    atomic.Bool // breakerd does not answer
}

type circuit struct {
	State, Detail                 string // Detail is of a problem document
	FailureCount, LastStateChange int64
	status                        int // 409: no longer in the state "from"; 0: no answer
}

// New gives a Breaker for the circuit key; base is breakerd's address.
func New(base, key string) *Breaker {
	pool := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second}
	return &Breaker{Threshold: 5, OpenTime: 30 * time.Second, url: base + "/v1/circuits/" + url.PathEscape(key),
		Client: &http.Client{Timeout: 300 * time.Millisecond, Transport: pool}}
}

func (b *Breaker) Enter() string {
	switch c := b.ask("GET", "", ""); {
	case c.status == 0:
		return Unknown
	case c.State == Closed:
		return Closed
	case time.Since(time.UnixMilli(c.LastStateChange)) < b.OpenTime:
		return Open
	case c.State == HalfOpen: // whoever probed never came back
		b.transition(HalfOpen, Open)
		return Open
	}
	return map[int]string{200: HalfOpen, 409: Open, 0: Unknown}[b.transition(Open, HalfOpen)] // of all gateways, one
}

// Leave says how the request went that Enter gave the permit for.
func (b *Breaker) Leave(permit string, ok bool) {
	verb, to := "/failure", Open
	if permit != Closed && permit != HalfOpen {
		return
	} else if ok {
		verb, to = "/success", Closed
	}
	c := b.ask("POST", verb, "")
	if permit == HalfOpen || !ok && c.FailureCount >= b.Threshold {
		b.transition(permit, to)
	}
}

func (b *Breaker) transition(from, to string) int {
	return b.ask("POST", "/transition", fmt.Sprintf(`{"from":%q,"to":%q}`, from, to)).status
}

func (b *Breaker) ask(method, verb, body string) (c circuit) {
	var response *http.Response
	request, err := http.NewRequest(method, b.url+verb, strings.NewReader(body))
	if err == nil {
		request.Header.Set("Authorization", "Bearer "+b.Token)
		response, err = b.Client.Do(request)
	}
	if err == nil {
		defer response.Body.Close()
		err = json.NewDecoder(response.Body).Decode(&c)
		if err == nil && (response.StatusCode == 200 || response.StatusCode == 409) {
			c.status = response.StatusCode
		}
	}
	if silent := b.silent.Swap(c.status == 0); c.status == 0 && !silent { // once, not for each request
		log.Println("breakerd does not answer, requests are let through:", c.Detail, err)
	}
	return c
}
