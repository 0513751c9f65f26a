package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quantile gives the part q of sorted times.
func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[min(len(times)-1, int(q*float64(len(times))))].Round(10 * time.Microsecond)
}

// appendFor appends one event after the other, each over a connection of its own, until done is closed, and at least
// once. It gives how long each took.
func (s *submitter) appendFor(done <-chan struct{}) (times []time.Duration) {
	s.r.t.Helper()
	for {
		start := time.Now()
		s.append("migration.load", "")
		times = append(times, time.Since(start))
		select {
		case <-done:
			return times
		default:
		}
	}
}

// closing is a client that opens a connection for each request, as who comes anew does, and does not wait for ever.
func closing() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func after(d time.Duration) <-chan struct{} {
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	return done
}

// slowConnections is how many connections a slow attack holds.
const slowConnections = 400

// slowHTTPTest runs slowhttptest, and gives what it says.
func slowHTTPTest(t *testing.T, url string, args ...string) string {
	args = append(args, "-c", strconv.Itoa(slowConnections), "-r", strconv.Itoa(slowConnections), "-i", "1", "-l", "5", "-p", "3", "-u", url)
	out, err := exec.CommandContext(t.Context(), "slowhttptest", args...).CombinedOutput()
	if err != nil {
		t.Errorf("slowhttptest: %v: %s", err, out)
	}
	return regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(string(out), "")
}

// timed says that a test of times is not for the race detector, which makes everything slow.
func timed(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("times mean nothing under the race detector")
	}
}

func TestSlowClientsDoNotStopOthers(t *testing.T) {
	timed(t)
	if _, err := exec.LookPath("slowhttptest"); err != nil {
		if os.Getuid() == 0 {
			t.Fatal("there is no slowhttptest: make deps installs it")
		}
		t.Skip("NOT RUN: slow clients: there is no slowhttptest, and only root installs it")
	}
	r := newLog(t, func(c string) string {
		return fastPublish(c) + "limits: {header_timeout: 1s, request_timeout: 2s}\n"
	})
	r.client = closing()
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	alone := quantile(crm.appendFor(after(time.Second)), .99)
	t.Logf("alone: p99 %v", alone)
	for _, attack := range []struct {
		name string
		ends bool // the server ends all connections while the attack lasts
		run  func() string
	}{
		{"slow heads", true, func() string { return slowHTTPTest(t, r.url+"/v1/events", "-H") }},
		{"slow bodies", true, func() string { return slowHTTPTest(t, r.url+"/v1/events", "-B", "-s", "100000") }},
		{"slow bodies of somebody known", true, func() string { return r.slowBodies(crm.token) }},
		{"many ranges", true, func() string { return slowHTTPTest(t, r.url+"/openapi.yaml", "-R") }},
		{"slow reads", false, func() string {
			return slowHTTPTest(t, r.url+"/openapi.yaml", "-X", "-k", "10", "-w", "1", "-y", "8", "-z", "1", "-n", "1")
		}},
	} {
		ended := make(chan struct{})
		var said string
		go func() {
			defer close(ended)
			said = attack.run()
		}()
		times := crm.appendFor(ended)
		p99 := quantile(times, .99)
		t.Logf("%s of %d connections: %d appends, p50 %v, p99 %v", attack.name, slowConnections, len(times), quantile(times, .5), p99)
		if p99 > 10*alone+500*time.Millisecond {
			t.Errorf("%s: others wait: p99 %v, alone %v", attack.name, p99, alone)
		}
		if attack.ends != strings.Contains(said, "No open connections left") || strings.Contains(said, "available:   NO") {
			t.Errorf("%s: want all connections ended: %t, and the service available:\n%s", attack.name, attack.ends, said)
		}
	}
}

// slowBodies begins appends with a good token whose bodies come byte by byte. It says when the server has ended all.
func (r *running) slowBodies(token string) string {
	head := strings.ReplaceAll(post, "{token}", token) + "Content-Length: 100000\r\n\r\n"
	var open []net.Conn
	for range slowConnections {
		c, err := r.attacker(nil).dial()
		if err != nil {
			return err.Error()
		}
		defer func() { _ = c.Close() }() // the server has
		if _, err := io.WriteString(c, head); err != nil {
			return err.Error()
		}
		open = append(open, c)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		open = slices.DeleteFunc(open, func(c net.Conn) bool {
			_, err := io.WriteString(c, "x")
			return err != nil
		})
		if len(open) == 0 {
			return "No open connections left"
		}
	}
	return fmt.Sprintf("%d connections are open after 10s", len(open))
}

const idleConnections = 10_000

// allowFiles raises the limit of open files of this process, and so of those that it starts.
func allowFiles(t *testing.T, want uint64) {
	t.Helper()
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur >= want {
		return
	}
	limit.Cur, limit.Max = want, max(limit.Max, want)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		if os.Getuid() == 0 {
			t.Fatalf("allow %d open files: %v", want, err)
		}
		t.Skipf("NOT RUN: %d idle connections: only root may allow %d open files: %v", idleConnections, want, err)
	}
}

func TestTenThousandIdleConnectionsStopNothing(t *testing.T) {
	timed(t)
	allowFiles(t, idleConnections+500)
	r := newLog(t, func(c string) string {
		return fastPublish(c) + fmt.Sprintf("limits: {connections: %d}\n", idleConnections+100)
	})
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	must(t, r.stop())
	p := launch(t, r.dir, binary(t), "serve")
	must(t, p.up())
	r.stop = func() error {
		r.stop = nil
		must(t, p.cmd.Process.Signal(os.Interrupt))
		<-p.ended
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("%v: %s", p.cmd.ProcessState, p.said)
		}
		return nil
	}
	r.url, r.client = p.url, closing()
	alone := quantile(crm.appendFor(after(time.Second)), .99)
	before := r.resident()

	a := r.attacker(nil)
	var answer [len("HTTP/1.1 200 OK")]byte
	for range idleConnections {
		c, err := a.dial()
		must(t, err)
		t.Cleanup(func() { _ = c.Close() }) // the server may have
		_, err = io.WriteString(c, healthRequest)
		must(t, err)
		if _, err = io.ReadFull(c, answer[:]); err != nil || string(answer[9:12]) != "200" {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	times := crm.appendFor(after(2 * time.Second))
	p99, each := quantile(times, .99), (r.resident()-before)/idleConnections
	t.Logf("%d idle connections: %d appends, p99 %v (alone %v), %d bytes of memory each", idleConnections, len(times), p99, alone, each)
	if p99 > 10*alone+500*time.Millisecond {
		t.Errorf("others wait: p99 %v, alone %v", p99, alone)
	}
	if each > 64<<10 {
		t.Errorf("an idle connection takes %d bytes", each)
	}
	size := r.size()
	await(t, "all that was appended to be published", func() bool { return r.checkpoint().Size >= size })
}

// resident gives the memory of the server, as its metrics say.
func (r *running) resident() int {
	r.t.Helper()
	found := regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`).FindSubmatch(r.metrics())
	if found == nil {
		r.t.Fatal("the metrics do not say how much memory is used")
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	must(r.t, err)
	return int(n)
}
