package mesh

import (
	"meshd/mesh/internal/keys"
	"meshd/mesh/internal/store"
)

// The files of the data directory, which hold what must survive the process.
const (
	fileNode      = "node.json"      // the name, the last incarnation and the Lamport time (S7, S8)
	fileRegistry  = "meshd.db"       // registrations, networks made here, claims carried (V2, V6), records by key (N11)
	fileTasks     = "tasks.json"     // the same, of versions before; read once, and kept under another name
	fileSandboxes = "sandboxes.json" // attached containers (L4)
	fileSysctls   = "sysctls.json"   // settings of the host that were changed, and how they were found (N8)
	filePeers     = "peers.json"     // nodes once met (G2); a cache
	filePeersLog  = "peers.log"      // what changed of them since that was written
)

// maxPeersFile is how many bytes each of the files of peers may have: 200,000 with the
// longest names take less.
const maxPeersFile = 64 << 20

// dataFiles describes them to the package that keeps them.
func dataFiles() []store.File {
	return []store.File{
		{Name: fileNode},
		{Name: fileRegistry},
		{Name: fileTasks},
		{Name: fileSandboxes},
		{Name: fileSysctls},
		{Name: keys.FileName},
		{Name: filePeers, MaxSize: maxPeersFile, Cache: true},
		{Name: filePeersLog, MaxSize: maxPeersFile, Cache: true},
	}
}
