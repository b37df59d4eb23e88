package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Limits of one reply.
const (
	maxReply    = 256 << 20
	maxErrReply = 64 << 10
	maxEvent    = 1 << 20
	replyLimit  = meshLimit + quickLimit // if the caller's ctx has no deadline
)

// Client calls the API of the meshd on a unix socket. It is safe for
// concurrent use. Its methods return an *Error if the daemon refuses and an
// error that wraps ErrUnreachable if none answers.
type Client struct {
	sourceCalls
	path string
	http *http.Client
}

// Dial returns a client for the socket at path. It does not connect yet; each
// call does as needed.
func Dial(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	t := &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	c := &Client{path: path, http: &http.Client{Transport: t}}
	c.sourceCalls.c = c
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends one request and returns the reply of a success; the caller closes
// its body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: "meshd", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), r)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(resp)
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%w on %s: %w", ErrUnreachable, c.path, err)
}

// refusal reads the *Error of a reply.
func (c *Client) refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrReply))
	var e Error
	if err := json.Unmarshal(b, &e); err != nil || e.Code == "" {
		return fmt.Errorf("%w: what answers on %s is not meshd (%s)", ErrUnreachable, c.path, resp.Status)
	}
	return &e
}

// call sends one request and decodes the reply.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (reply T, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, replyLimit)
		defer cancel()
	}
	resp, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return reply, c.unreachable(ctx, err)
	}
	if len(b) > maxReply {
		return reply, Refuse(CodeTooLarge, "ask for one network", "the reply exceeds %d bytes", maxReply)
	}
	if err := json.Unmarshal(b, &reply); err != nil {
		return reply, fmt.Errorf("%w: the reply on %s is not what meshd sends: %w", ErrUnreachable, c.path, err)
	}
	return reply, nil
}

// checkNode refuses a reply that names no node. Other servers may answer any
// request with a JSON object, and an empty one must not pass for a healthy node.
func (c *Client) checkNode(node string, err error) error {
	if err == nil && node == "" {
		return fmt.Errorf("%w: what answers on %s is not meshd", ErrUnreachable, c.path)
	}
	return err
}

// Version implements Backend.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return call[Version](ctx, c, http.MethodGet, "/v1/version", nil, nil)
}

// Doctor implements Backend.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	d, err := call[Doctor](ctx, c, http.MethodGet, "/v1/doctor", nil, nil)
	return d, c.checkNode(d.Node, err)
}

// Status implements Backend.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s, err := call[Status](ctx, c, http.MethodGet, "/v1/status", nil, nil)
	return s, c.checkNode(s.Node, err)
}

// Nodes implements Backend.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return call[[]Node](ctx, c, http.MethodGet, "/v1/nodes", nil, nil)
}

// Join implements Backend.
func (c *Client) Join(ctx context.Context, req JoinRequest) (JoinReply, error) {
	return call[JoinReply](ctx, c, http.MethodPost, "/v1/join", nil, req)
}

// Leave implements Backend.
func (c *Client) Leave(ctx context.Context) (LeaveReply, error) {
	return call[LeaveReply](ctx, c, http.MethodPost, "/v1/leave", nil, nil)
}

// Diff implements Backend.
func (c *Client) Diff(ctx context.Context, req DiffRequest) (Diff, error) {
	return call[Diff](ctx, c, http.MethodGet, "/v1/diff", params("network", req.Network), nil)
}

// Spread implements Backend.
func (c *Client) Spread(ctx context.Context, req SpreadRequest) (Spread, error) {
	return call[Spread](ctx, c, http.MethodGet, "/v1/spread", params("network", req.Network), nil)
}

// Metrics implements Backend.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/metrics", nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, io.LimitReader(resp.Body, maxReply)); err != nil {
		return fmt.Errorf("copy metrics: %w", err)
	}
	return nil
}

// Watch implements Backend. It does not reconnect: if the daemon ends the
// stream, it returns an error that wraps ErrUnreachable, and the caller may
// call it again with the last index and boot id. An error of emit is returned
// as it is.
func (c *Client) Watch(ctx context.Context, req WatchRequest, emit func(Event) error) error {
	q := params("network", req.Network, "boot", req.Boot)
	if req.From > 0 {
		q.Set("from", strconv.FormatUint(req.From, 10))
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/watch", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("%w: an event on %s is not what meshd sends: %w", ErrUnreachable, c.path, err)
		}
		if err := emit(e); err != nil {
			return err
		}
	}
	err = lines.Err()
	if err == nil {
		err = errors.New("the stream ended")
	}
	return c.unreachable(ctx, err)
}

// params returns the query of the pairs whose value is not empty.
func params(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}
