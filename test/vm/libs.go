package vm

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// libraryDirs is where the loader looks by itself, on Debian and elsewhere.
func libraryDirs() []string {
	return []string{
		"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib",
	}
}

// maxLibraries bounds the files that one program may need.
const maxLibraries = 500

// libraries returns the loader and all the shared libraries that a program
// needs, by the paths at which the loader will look for them. A static program,
// or a script, needs none.
func libraries(program string) ([]string, error) {
	seen := map[string]bool{program: true}
	queue := []string{program}
	var found []string
	for len(queue) > 0 && len(seen) < maxLibraries {
		file := queue[0]
		queue = queue[1:]
		needs, err := needed(file)
		if err != nil {
			return nil, fmt.Errorf("libraries of %s: %w", program, err)
		}
		for _, path := range needs {
			if !seen[path] {
				seen[path] = true
				found, queue = append(found, path), append(queue, path)
			}
		}
	}
	return found, nil
}

// needed returns the paths of the files that one ELF file names.
func needed(file string) ([]string, error) {
	f, err := elf.Open(file)
	if _, other := errors.AsType[*elf.FormatError](err); other || errors.Is(err, io.EOF) {
		return nil, nil // a script, or too short for anything else
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var paths []string
	if loader, err := interpreter(f); err != nil {
		return nil, err
	} else if loader != "" {
		paths = append(paths, loader)
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	dirs := append(runPath(f, filepath.Dir(file)), libraryDirs()...)
	for _, name := range names {
		path, err := search(name, dirs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// interpreter is the loader that a program asks for, or nothing.
func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		path := make([]byte, p.Filesz)
		if _, err := p.ReadAt(path, 0); err != nil {
			return "", err
		}
		return strings.TrimRight(string(path), "\x00"), nil
	}
	return "", nil
}

// runPath is the directories that a file itself names.
func runPath(f *elf.File, origin string) []string {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		lists, _ := f.DynString(tag)
		for _, list := range lists {
			for dir := range strings.SplitSeq(list, ":") {
				dir = strings.ReplaceAll(strings.ReplaceAll(dir, "${ORIGIN}", origin), "$ORIGIN", origin)
				if filepath.IsAbs(dir) {
					dirs = append(dirs, filepath.Clean(dir))
				}
			}
		}
	}
	return dirs
}

func search(name string, dirs []string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && s.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("library %s is nowhere in %s", name, strings.Join(dirs, " "))
}
