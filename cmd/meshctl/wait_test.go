package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
)

// --wait asks until every node is done; who was done once is.
func TestWaitForEffect(t *testing.T) {
	for _, line := range []string{
		"task add --network collabnet --service web --ip 10.1.0.7 --wait", "task rm x --wait 20s", "task drain --wait=20s x",
		"network create collabnet --subnet 10.9.0.0/16 --wait", "network rm --wait 20s collabnet",
		"service set web --network collabnet --ttl 2s --wait", "sandbox attach --wait --netns web --network collabnet",
		"join 192.0.2.1 --wait",
	} {
		b := newBench(t)
		b.spreads = []control.Spread{
			{Results: []control.NodeResult{{Node: "a"}, {Node: "b", Error: "lacks it"}}, OK: 1, Total: 2},
			{Results: []control.NodeResult{{Node: "a", Error: "has more to do"}, {Node: "b"}}, OK: 1, Total: 2},
			{Results: []control.NodeResult{{Node: "a"}, {Node: "b"}}, OK: 2, Total: 2},
		}
		want := 2
		if strings.HasPrefix(line, "sandbox") {
			want = 3 // it is in two networks
		}
		if got := b.run(t.Context(), strings.Fields(line)...); got.code != exitDone || got.stdout == "" {
			t.Errorf("%s: %+v", line, got)
		}
		if b.spread != want {
			t.Errorf("%s: asked %d times, want %d", line, b.spread, want)
		}
		without := slices.DeleteFunc(strings.Fields(line), func(w string) bool {
			return strings.HasPrefix(w, "--wait") ||
				w == "20s"
		})
		b.spread = 0
		if got := b.run(t.Context(), without...); got.code != exitDone || b.spread != 0 {
			t.Errorf("%v: %+v, asked %d times", without, got, b.spread)
		}
		b.halt()
	}
}

// What is not in effect in time is said, with the exit code 1.
func TestWaitEnds(t *testing.T) {
	b := newBench(t)
	b.spreads = []control.Spread{{
		Results: []control.NodeResult{{Node: "a"}, {Node: "b", Error: "lacks it"}}, OK: 1,
		Total: 2,
	}}
	got := b.run(t.Context(), "task", "rm", "x", "--wait", "120ms")
	if got.code != exitRefused || got.stdout != "x\n" || !strings.Contains(got.stderr, "after 120ms: b lacks it") ||
		!strings.Contains(got.stderr, "hint: ") {
		t.Errorf("got %+v", got)
	}
	if b.spread < 2 {
		t.Errorf("asked %d times", b.spread)
	}
}

// With --wait, a meshd that is about to start is waited for.
func TestWaitForStart(t *testing.T) {
	for _, line := range []string{"node ls --alive 1 --wait", "network create n --subnet 10.9.0.0/16 --wait"} {
		b := newBench(t)
		b.halt()
		if got := b.run(t.Context(), strings.Fields(strings.Replace(line, "--wait", "--wait 100ms",
			1))...); got.code != exitUnreachable {
			t.Errorf("%s: nobody comes: %+v", line, got)
		}
		done := make(chan outcome, 1)
		go func() { done <- b.run(t.Context(), strings.Fields(line)...) }()
		select {
		case got := <-done:
			t.Errorf("%s: did not wait: %+v", line, got)
		case <-time.After(3 * waitPause):
		}
		b.start(t)
		if got := <-done; got.code != exitDone {
			t.Errorf("%s: %+v", line, got)
		}
		b.halt()
	}
}

func TestNodeLsAlive(t *testing.T) {
	b := newBench(t)
	if got := b.run(t.Context(), "node", "ls", "--alive", "1"); got.code != exitDone {
		t.Errorf("got %+v", got)
	}
	got := b.run(t.Context(), "node", "ls", "--alive", "2", "--wait", "120ms")
	if got.code != exitRefused || !strings.Contains(got.stdout, "long-node-name") ||
		!strings.Contains(got.stderr, "1 of 2 nodes are alive") || b.asked < 3 {
		t.Errorf("got %+v after %d questions", got, b.asked)
	}
	if got := b.run(t.Context(), "node", "ls", "--alive", "0"); got.code != exitUsage {
		t.Errorf("got %+v", got)
	}
}

// "status --wait" ends with 0 only if all is well.
func TestStatusWait(t *testing.T) {
	b := newBench(t)
	if got := b.run(t.Context(), "status"); got.code != exitDone {
		t.Errorf("got %+v", got)
	}
	if got := b.run(t.Context(), "status", "--wait", "120ms"); got.code != exitRefused ||
		!strings.Contains(got.stdout, "1 of 3 members is dead") {
		t.Errorf("got %+v", got)
	}
	b.wellAfter = b.asked + 3
	if got := b.run(t.Context(), "status", "--wait"); got.code != exitDone || strings.Contains(got.stdout, "degraded") {
		t.Errorf("got %+v", got)
	}
}

// --wait takes the next word only if that can be nothing else.
func TestWaitWord(t *testing.T) {
	for line, want := range map[string]string{
		"x --wait 5s":    "x --wait=5s",
		"--wait 5s x":    "--wait=5s x",
		"--wait x":       "--wait x",
		"--wait":         "--wait",
		"--wait --all":   "--wait --all",
		"--wait=5s 10s":  "--wait=5s 10s",
		"-- --wait 5s":   "-- --wait 5s",
		"-wait 1m30s -x": "--wait=1m30s -x",
	} {
		if got := strings.Join(joinWait(strings.Fields(line), false), " "); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	if got := strings.Join(joinWait([]string{"--wait", "soon"}, true), " "); got != "--wait=soon" {
		t.Errorf("no arguments: %s", got)
	}
}
