package nft

import "meshd/lb/sysctl"

// SetSysctls is sysctl.Set.
func SetSysctls(path string, settings []Sysctl, tell func(SysctlChange)) (changed []string, err error) {
	return sysctl.Set(path, settings, tell)
}

// ChangedSysctls is sysctl.Changed.
func ChangedSysctls(changes []SysctlChange) (ours []SysctlChange, others []string, err error) {
	return sysctl.Changed(changes)
}

// PutBackSysctls is sysctl.PutBack.
func PutBackSysctls(changes []SysctlChange) error { return sysctl.PutBack(changes) }
