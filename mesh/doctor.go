package mesh

import (
	"context"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/internal/lookout"
)

// Doctor implements control.NodeBackend.
func (n *Node) Doctor(ctx context.Context) (control.Doctor, error) {
	found, err := n.lookout.Look(ctx)
	if err != nil {
		return control.Doctor{}, err
	}
	d := lookout.Report(found)
	d.Node = n.cfg.Node
	return d, nil
}

// Examine looks at a host on which no meshd runs yet, as one with that
// configuration would find it. What keeps such a meshd from starting is a
// finding, too.
func Examine(cfg config.Config) control.Doctor {
	s, err := cfg.Check()
	if err != nil {
		return lookout.Report([]hostcheck.Finding{{
			Code: hostcheck.Configuration, Severity: hostcheck.Fault, What: "meshd would not start: " + err.Error(),
			Document: "OPERATIONS: Files",
		}})
	}
	r := hostread.Open()
	defer r.Close()
	needs := hostNeeds(s)
	return lookout.Report(hostcheck.Findings(r.Read(hostread.Want{}), needs))
}
