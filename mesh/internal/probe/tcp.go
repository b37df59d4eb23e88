package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"meshd/mesh/health"
)

// maxAnswer is how much of an answer is read.
const maxAnswer = 4 << 10

// runTCP connects, and sends and expects what the check says.
func runTCP(ctx context.Context, c *health.Check, t Target) health.Result {
	conn, err := dial(ctx, t)
	if err != nil {
		return failure(ctx, c, err)
	}
	defer conn.Close()
	if c.Definition.TLS {
		secure := tls.Client(conn, tlsConfig(c, t))
		if err := secure.HandshakeContext(ctx); err != nil {
			return failure(ctx, c, err)
		}
		conn = secure
	}
	if c.Definition.Send != "" {
		if _, err := io.WriteString(conn, c.Definition.Send); err != nil {
			return failure(ctx, c, err)
		}
	}
	if c.Definition.Expect == "" {
		return passed("connected to %s", t.Addr)
	}
	return expect(ctx, c, conn)
}

// expect reads until the text that is expected has come.
func expect(ctx context.Context, c *health.Check, conn net.Conn) health.Result {
	b, want := make([]byte, 0, maxAnswer), []byte(c.Definition.Expect)
	for len(b) < cap(b) {
		n, err := conn.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; bytes.Contains(b, want) {
			return passed("%s", b)
		}
		if errors.Is(err, io.EOF) {
			return failed("the answer has no %q: %s", want, b)
		}
		if err != nil {
			return failure(ctx, c, err)
		}
	}
	return failed("the first %d bytes of the answer have no %q: %s", maxAnswer, want, b)
}

// tlsConfig is that of one run. The name in the certificate is the one that was asked
// for, or the address.
func tlsConfig(c *health.Check, t Target) *tls.Config {
	name := c.Definition.ServerName
	if name == "" {
		name = c.Definition.Host
	}
	if name == "" {
		name = t.Addr.Addr().String()
	}
	return &tls.Config{
		ServerName:         name,
		InsecureSkipVerify: c.Definition.SkipVerify, //nolint:gosec // asked for by name
		MinVersion:         tls.VersionTLS12,
	}
}
