//go:build linux

package hostile

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// controlCases are clients of the control socket.
func controlCases() []attack {
	dial := func(m *mesh) (net.Conn, error) {
		c, err := net.DialTimeout("unix", m.nodes[0].Socket, 2*time.Second)
		if err == nil {
			m.later(func() { _ = c.Close() })
		}
		return c, err
	}
	begin := func(count int, text string) func(m *mesh) error {
		return func(m *mesh) error {
			for range count {
				c, err := dial(m)
				if err != nil {
					return err
				}
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(c, text)
			}
			return nil
		}
	}
	return []attack{
		{name: "bodies-that-never-end", do: closing(begin(300, "POST /v1/tasks HTTP/1.1\r\nHost: meshd\r\nContent-Length: 100\r\n\r\n{"))},
		{name: "chunks-that-never-end", do: closing(begin(200, "POST /v1/networks HTTP/1.1\r\nHost: meshd\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"na"))},
		{name: "heads-that-never-end", do: closing(begin(300, "GET /v1/status HTTP/1.1\r\nHost: meshd\r\nX: "))},
		{name: "connections-that-say-nothing", do: closing(begin(300, ""))},
		{name: "watchers-that-never-read", do: closing(begin(300, "GET /v1/events?stream=true HTTP/1.1\r\nHost: meshd\r\n\r\nGET /v1/watch HTTP/1.1\r\nHost: meshd\r\n\r\n"))},
		{name: "requests-in-a-row", do: closing(begin(4, strings.Repeat("GET /v1/status HTTP/1.1\r\nHost: meshd\r\n\r\n", 200)))},
		{name: "garbage-for-the-control-socket", do: closing(begin(50, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage\r\n\r\n\x00\xff"))},
		{name: "bodies-of-all-kinds", do: bodies},
		{name: "body-of-50-megabytes", do: func(m *mesh) error {
			_, err := request(m, http.MethodPost, "/v1/tasks",
				bytes.NewReader(append([]byte(`{"service":"`), bytes.Repeat([]byte("x"), 50<<20)...)))
			return err
		}},
	}
}

// closing lets go of what a case opened as soon as it is done, so that what is
// measured afterwards is without it.
func closing(do func(m *mesh) error) func(m *mesh) error {
	return func(m *mesh) error {
		err := do(m)
		if err == nil {
			err = m.nodesAnswer()
		}
		for _, f := range m.closes {
			f()
		}
		m.closes = nil
		return err
	}
}

// nodesAnswer: everybody else is served meanwhile.
func (m *mesh) nodesAnswer() error {
	for _, n := range m.nodes {
		if _, err := n.Ctl("status"); err != nil {
			return err
		}
	}
	return m.serves()
}

// request sends one request; a refusal is no error, no answer is.
func request(m *mesh, method, path string, body io.Reader) (status int, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: unixDialer(m.nodes[0].Socket)}
	client := &http.Client{Timeout: 10 * time.Second, Transport: transport}
	r, err := http.NewRequestWithContext(m.ctx, method, "http://meshd"+path, body)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// bodies are such that none of them may succeed.
func bodies(m *mesh) error {
	long := strings.Repeat("x", 60000)
	deep := strings.Repeat(`{"service":`, 5000)
	for path, list := range map[string][]string{
		"/v1/tasks": {
			"", "{", "[]", "null", `"x"`, "1e999", deep, `{"network":"` + long + `"}`, `{"network":"collabnet","service":"web","ips":["127.0.0.1"]}`,
			`{"network":"collabnet","service":"web","ips":["10.96.0.7"]}`, `{"network":"collabnet","service":"web","ips":["::"]}`, `{"network":"collabnet","service":"a b","ips":["10.1.1.2"]}`,
			`{"network":"collabnet","service":"web","ips":["10.1.1.2"],"weight":99999}`, `{"network":"collabnet","service":"web","ips":["10.1.1.2"],"slot":-1}`,
			`{"network":"collabnet","service":"web","ips":["10.1.1.2"],"ports":["0"]}`, `{"network":"collabnet","service":"web","ips":["10.1.1.2"],"ports":["80/sctp"]}`,
			`{"network":"collabnet","service":"web","ips":["10.1.1.2"],"unknown":1}`, `{"network":"nowhere","service":"web","ips":["10.1.1.2"]}`, `{"network":"collabnet","service":"web","ips":["10.1.1.2%eth0"]}`,
			`{"network":"collabnet","service":"web","id":"../../x","ips":["10.1.1.2"]}`, `{"network":"collabnet","service":"web","id":"x\u0000","ips":["10.1.1.2"]}`, `{"network":"collabnet","service":"web","ips":["172.20.0.256"]}`,
		},
		"/v1/networks": {
			`{"name":"x","subnet":"172.20.0.0/24"}`, `{"name":"x","subnet":"127.0.0.0/8"}`, `{"name":"x","subnet":"0.0.0.0/0"}`, `{"name":"x","subnet6":"::/0"}`, `{"name":"","subnet":"10.77.0.0/16"}`,
			`{"name":"x"}`, `{"name":"x","subnet":"10.96.0.0/12"}`, `{"name":"x","subnet":"10.1.0.0/16"}`, `{"name":"x","subnet":"10.77.0.1/16"}`, `{"name":"x","subnet":"banana"}`, `{"name":"x","subnet":"224.0.0.0/8"}`,
			`{"name":"collabnet","subnet":"10.50.0.0/16"}`,
		},
		"/v1/sandboxes":   {`{"networks":["collabnet"],"pid":1}`, `{"networks":["collabnet"],"pid":-1}`, `{"networks":["collabnet"],"netns":"/etc/passwd"}`, `{"networks":[],"netns":"x"}`},
		"/v1/join":        {`{"addrs":["` + long + `"]}`, `{"addrs":[""]}`, `{`},
		"/v1/nothing":     {"{}"},
		"/v1/tasks/%00":   {"{}"},
		"/v1/tasks/../..": {"{}"},
	} {
		for _, body := range list {
			status, err := request(m, http.MethodPost, path, strings.NewReader(body))
			if err != nil {
				return err
			}
			if status < 300 || status > 499 {
				return fmt.Errorf("POST %s %.80s: status %d", path, body, status)
			}
		}
	}
	return nil
}
