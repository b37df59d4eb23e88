package config

import (
	"fmt"
	"path/filepath"
)

// The values of Config.Docker that are no path.
const (
	DockerAuto = "auto"
	DockerOff  = "off"
)

// EngineSockets returns the sockets at which a container engine of this host may answer,
// the first that is there counts; none: containers are not looked after.
func (c *Config) EngineSockets() []string {
	switch c.Docker {
	case DockerOff:
		return nil
	case DockerAuto:
		return []string{"/run/docker.sock", "/run/podman/podman.sock"}
	}
	return []string{c.Docker}
}

// checkDocker checks where the container engine is.
func (s *Settings) checkDocker() error {
	if s.Docker == DockerAuto || s.Docker == DockerOff {
		return nil
	}
	const most = 107 // bytes of the path of a unix socket
	if !filepath.IsAbs(s.Docker) || len(s.Docker) > most {
		return fmt.Errorf("docker: %q; use auto, off, or the absolute path of the engine's socket, at most %d bytes",
			s.Docker, most)
	}
	return nil
}
