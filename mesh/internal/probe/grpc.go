package probe

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"meshd/mesh/health"
)

// runGRPC asks grpc.health.v1.Health/Check (the gRPC health checking protocol).
func runGRPC(ctx context.Context, c *health.Check, t Target) health.Result {
	var dialed atomic.Pointer[error] // what grpc makes only a text of
	secure := insecure.NewCredentials()
	if c.Definition.TLS {
		secure = credentials.NewTLS(tlsConfig(c, t))
	}
	conn, err := grpc.NewClient("passthrough:///"+t.Addr.String(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			conn, err := dial(ctx, t) // ends with the run, whatever grpc thinks of it
			if err != nil {
				dialed.Store(&err)
			}
			return conn, err
		}),
		grpc.WithTransportCredentials(secure), grpc.WithUserAgent("meshd-health-check"), grpc.WithNoProxy(),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
		grpc.WithMaxHeaderListSize(maxHeaders), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return unknown("%v", err)
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: c.Definition.Service})
	_ = conn.Close() // after it nobody dials any more
	if err == nil {
		if answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return passed("SERVING")
		}
		return failed("%s", answer.GetStatus())
	}
	if err := dialed.Load(); err != nil {
		return failure(ctx, c, *err)
	}
	return failure(ctx, c, explain(err))
}

// explain says in words what the usual refusals mean.
func explain(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unimplemented:
		return fmt.Errorf("the server has no grpc.health.v1.Health: %s", s.Message())
	case codes.NotFound:
		return fmt.Errorf("the server does not know the service: %s", s.Message())
	}
	return fmt.Errorf("%s: %s", s.Code(), s.Message())
}
