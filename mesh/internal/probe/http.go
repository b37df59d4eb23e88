package probe

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"meshd/mesh/health"
)

// maxHeaders bounds the headers of an answer.
const maxHeaders = 16 << 10

// runHTTP makes one request, on a connection of its own: a connection that is kept would
// hide that nobody listens any more. Redirects are not followed, wherever they lead.
func runHTTP(ctx context.Context, c *health.Check, t Target) health.Result {
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, t) },
		TLSClientConfig:        tlsConfig(c, t),
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaders,
	}
	defer transport.CloseIdleConnections()
	req, err := request(ctx, c, t)
	if err != nil {
		return unknown("%v", err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return failure(ctx, c, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if !succeeded(c, resp.StatusCode) {
		return failed("%s\n%s", resp.Status, body)
	}
	if err != nil {
		return failure(ctx, c, err)
	}
	if want := c.Definition.Expect; want != "" && !strings.Contains(string(body), want) {
		return failed("%s, but the first %d bytes of the body have no %q\n%s", resp.Status, maxAnswer, want, body)
	}
	return passed("%s\n%s", resp.Status, body)
}

// request is what is asked.
func request(ctx context.Context, c *health.Check, t Target) (*http.Request, error) {
	d := &c.Definition
	u, err := url.ParseRequestURI(d.Path)
	if err != nil {
		return nil, err
	}
	u.Scheme, u.Host = d.Type, t.Addr.String()
	req, err := http.NewRequestWithContext(ctx, d.Method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "meshd-health-check")
	for k, v := range d.Headers {
		req.Header.Set(k, v)
	}
	req.Host = cmp.Or(hostHeader(d.Host, t), t.Addr.String())
	return req, nil
}

// hostHeader is a host with the port where it is not the usual one.
func hostHeader(host string, t Target) string {
	if port := t.Addr.Port(); host != "" && port != 80 && port != 443 {
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	if strings.Contains(host, ":") { // an IPv6 address
		return "[" + host + "]"
	}
	return host
}

// succeeded reports whether a status is one of success.
func succeeded(c *health.Check, status int) bool {
	for _, r := range c.Codes {
		if r.From <= status && status <= r.To {
			return true
		}
	}
	return false
}
