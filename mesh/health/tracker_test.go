package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// parse makes a check of one line.
func parse(t testing.TB, s string) *Check {
	t.Helper()
	d, err := ParseFlag(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	c, err := d.Parse()
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return c
}

// steps runs a tracker through letters, a second apart: p passed, w warned, f failed,
// u unknown, e only the time. It returns the verdict after each, S, H or F, in lower case
// where people see failing and everybody else starting.
func steps(m *Tracker, from time.Duration, letters string) string {
	var out strings.Builder
	now := from
	for _, l := range letters {
		now += time.Second
		switch l {
		case 'p':
			m.Step(now, Passed)
		case 'w':
			m.Step(now, Warned)
		case 'f':
			m.Step(now, Failed)
		case 'u':
			m.Step(now, Unknown)
		case 'e':
			m.Expire(now)
		}
		letter := strings.ToUpper(m.State().String()[:1])
		if m.Effective() != m.State() {
			letter = strings.ToLower(letter)
		}
		out.WriteString(letter)
	}
	return out.String()
}

// C2, C3: what follows from which answers.
func TestVerdictsFollowFromAnswers(t *testing.T) {
	for _, x := range []struct{ what, check, answers, want string }{
		{"the first success is enough", "tcp://", "p", "H"},
		{"a warning counts as a success", "tcp://", "w", "H"},
		{"a new task that never passed is never stated as failing", "tcp://", "fffff", "SSfff"},
		{"its first success is enough, however often it failed", "tcp://", "fffffp", "SSfffH"},
		{"three failures in a row", "tcp://", "pfffp", "HHHFF"},
		{"two successes bring it back", "tcp://", "pfffpp", "HHHFFH"},
		{"a success in between begins anew", "tcp://", "pffpffpfff", "HHHHHHHHHF"},
		{"a failure in between begins anew", "tcp://", "pfffpfpp", "HHHFFFFH"},
		{"fall=1", "tcp://,fall=1", "pf", "HF"},
		{"rise=1", "tcp://,fall=1,rise=1", "pfp", "HFH"},
		{"what is not known changes nothing", "tcp://", "pfufuuufuuup", "HHHHHHHFFFFF"},
		{"nor does it before the first verdict", "tcp://", "uuuup", "SSSSH"},
		{"failures in the start period do not count", "tcp://,start-period=5s,fall=1", "ffff", "SSSS"},
		{"they do afterwards", "tcp://,start-period=5s,fall=2", "ffffff", "SSSSSf"},
		{"a success ends the start period", "tcp://,start-period=1h,fall=1", "pf", "HF"},
		{"a heartbeat is good for its time", "ttl:3s", "peeep", "HHHFH"},
		{"a task without a heartbeat fails after its time", "ttl:3s", "eeee", "SSff"},
		{"a report of a failure counts at once", "ttl:3s", "pf", "HF"},
		{"and holds until there is a better one", "ttl:3s", "pfeeeep", "HFFFFFH"},
		{"a container engine has counted already", "docker", "pfp", "HFH"},
	} {
		m := NewTracker(parse(t, x.check), 0)
		if got := steps(m, 0, x.answers); got != x.want {
			t.Errorf("%s: %s after %s, want %s", x.what, got, x.answers, x.want)
		}
	}
}

// C4: a former life's verdict holds until there is another one, and not for ever.
func TestVerdictsOfAFormerLife(t *testing.T) {
	quiet := strings.Repeat("u", 29)
	for _, x := range []struct {
		what, check   string
		was           State
		answers, want string
	}{
		{"healthy stays", "tcp://", Healthy, "pp", "HH"},
		{"healthy needs as many failures as ever", "tcp://", Healthy, "fff", "HHF"},
		{"failing stays until it rises", "tcp://", Failing, "pp", "FH"},
		{"starting is starting", "tcp://", Starting, "fffp", "SSfH"},
		{"without an answer it is over after 30s", "tcp://", Healthy, quiet + "uu", strings.Repeat("H", 29) + "SS"},
		{"failing, too: nothing is known", "tcp://", Failing, quiet + "uu", strings.Repeat("F", 29) + "SS"},
		{"an answer confirms it", "tcp://", Healthy, "p" + quiet + "uu", strings.Repeat("H", 32)},
		{"a heartbeat has one time of grace", "ttl:40s", Healthy, strings.Repeat("e", 41), strings.Repeat("H", 39) + "FF"},
		{"a short one as well", "ttl:3s", Healthy, "eeee", "HHFF"},
	} {
		m := ResumeTracker(parse(t, x.check), x.was, 0)
		if got := steps(m, 0, x.answers); got != x.want {
			t.Errorf("%s: %s after %s, want %s", x.what, got, x.answers, x.want)
		}
	}
}

func TestWhenTheNextRunIs(t *testing.T) {
	for _, x := range []struct {
		check, answers string
		want           time.Duration
	}{
		{"tcp://", "", time.Second},
		{"tcp://", "f", time.Second},
		{"tcp://", "p", 10 * time.Second},
		{"tcp://", "pf", 2 * time.Second},
		{"tcp://", "pfff", 2 * time.Second},
		{"tcp://", "pfffp", 2 * time.Second},
		{"tcp://", "pfffpp", 10 * time.Second},
		{"tcp://", "ffffff", 2 * time.Second},
		{"tcp://,interval=300ms", "", 300 * time.Millisecond},
		{"tcp://,interval=300ms", "pf", 300 * time.Millisecond},
	} {
		m := NewTracker(parse(t, x.check), 0)
		steps(m, 0, x.answers)
		if got := m.Wait(); got != x.want {
			t.Errorf("%s after %q: in %s, want %s", x.check, x.answers, got, x.want)
		}
	}
}

// C5: unknown is a condition after three intervals, and never a verdict.
func TestBlindness(t *testing.T) {
	m := NewTracker(parse(t, "tcp://,interval=1s,timeout=1s"), 0)
	steps(m, 0, "puu")
	if m.Blind(3 * time.Second) {
		t.Error("two seconds without an answer are a condition already")
	}
	if !m.Blind(4 * time.Second) {
		t.Error("three intervals without an answer are no condition")
	}
	if m.Step(5*time.Second, Failed); m.Blind(5 * time.Second) {
		t.Error("a failure is no answer")
	}
}

// Whatever the answers and times: a task is served only after a success, leaves only
// after a failure or a silence, and unknown answers alone change nothing of it.
func TestVerdictsWhateverComes(t *testing.T) {
	checks := []*Check{
		parse(t, "tcp://"), parse(t, "tcp://,fall=1,rise=1"), parse(t, "ttl:30s"), parse(t, "docker"),
		parse(t, "http://,start-period=20s,fall=5,rise=4"),
	}
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(checks).Draw(t, "check")
		m, now := NewTracker(c, 0), time.Duration(0)
		fails, passes, ever, last := 0, 0, false, time.Duration(0)
		for i := range rapid.IntRange(1, 60).Draw(t, "n") {
			now += time.Duration(rapid.Int64Range(0, int64(40*time.Second)).Draw(t, fmt.Sprint("wait", i)))
			before := m.State()
			if c.TTL > 0 && now-last >= c.TTL {
				passes, fails = 0, max(fails, 1)
			}
			switch o := rapid.SampledFrom([]Outcome{Passed, Warned, Failed, Unknown}).Draw(t, "outcome"); o {
			case Failed:
				m.Step(now, o)
				passes, fails = 0, fails+1
			case Unknown:
				if m.Step(now, o); m.State() != before && c.TTL == 0 {
					t.Fatalf("%s after an unknown answer, from %s", m.State(), before)
				}
			default:
				m.Step(now, o)
				passes, fails, ever, last = passes+1, 0, true, now
			}
			switch {
			case m.Effective() == Healthy && !ever:
				t.Fatal("served without a success")
			case m.Effective() == Failing && !ever:
				t.Fatal("stated as failing without a success before")
			case m.State() == Healthy && fails >= c.Fall:
				t.Fatalf("healthy after %d failures", fails)
			case m.State() == Failing && passes >= c.Rise:
				t.Fatalf("failing after %d successes", passes)
			}
			if at, ok := m.Deadline(); ok && at <= now {
				t.Fatalf("a deadline at %s, now %s", at, now)
			}
		}
	})
}

func TestTasksAreAsWellAsTheirWorstCheck(t *testing.T) {
	for _, x := range []struct {
		want State
		all  []State
	}{
		{Healthy, nil},
		{Healthy, []State{Healthy, Healthy}},
		{Starting, []State{Healthy, Starting}},
		{Failing, []State{Failing, Starting, Healthy}},
	} {
		if got := Combine(x.all); got != x.want {
			t.Errorf("%v: %s", x.all, got)
		}
	}
}
