package control

import (
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/API.md describes exactly the routes that there are, and its examples work.
func TestDocRoutes(t *testing.T) {
	doc := readDoc(t)
	var described []string
	for _, part := range strings.Split(doc, "\n### ")[1:] {
		pattern, text, _ := strings.Cut(part, "\n")
		described = append(described, pattern)
		if pattern != "GET /v1/watch" {
			runExample(t, pattern, text)
		}
	}
	known := newHandler(newFake(), slog.New(slog.DiscardHandler), nil, defaultLimits()).known
	slices.Sort(known)
	slices.Sort(described)
	if !slices.Equal(known, described) {
		t.Errorf("docs/API.md describes\n%v\nthe routes are\n%v", described, known)
	}
}

var example = regexp.MustCompile(`(?m)^    curl --unix-socket \S+ (?:-X (\w+) )?(?:-d '([^']*)' )?'?(http://meshd\S+?)'?$`)

func runExample(t *testing.T, pattern, text string) {
	t.Helper()
	m := example.FindStringSubmatch(text)
	if m == nil {
		t.Errorf("%s: no example", pattern)
		return
	}
	method, body := m[1], m[2]
	if method == "" {
		method = "GET"
		if body != "" {
			method = "POST"
		}
	}
	u, err := url.Parse(m[3])
	if err != nil || !strings.HasPrefix(pattern, method+" ") {
		t.Errorf("%s: the example is %s %s, %v", pattern, method, m[3], err)
		return
	}
	if w := do(newFake(), method, u.RequestURI(), body); w.Code != 200 {
		t.Errorf("%s: the example gets %d %s", pattern, w.Code, w.Body)
	}
}

// Every field, code and type of event is explained.
func TestDocFields(t *testing.T) {
	doc := readDoc(t)
	words := map[string]bool{}
	for _, v := range []any{
		Version{},
		Status{},
		MemberCount{},
		NetworkStatus{},
		Node{},
		JoinRequest{},
		JoinReply{},
		JoinResult{},
		LeaveReply{},
		CreateNetwork{},
		NetworkDetail{},
		Network{},
		Stream{},
		AddTask{},
		TaskAdded{},
		SetService{},
		Task{},
		ServiceDetail{},
		Service{},
		TaskCount{},
		Claim{},
		Resolution{},
		Step{},
		AttachSandbox{},
		SandboxAttached{},
		SandboxDetached{},
		SandboxDetail{},
		Sandbox{},
		LBTable{},
		LBVerifyRequest{},
		LBVerifyReply{},
		LBReport{},
		LBDifference{},
		LBHealth{},
		LBService{},
		LBBackend{},
		Counters{},
		Diff{},
		NetworkDiff{},
		Spread{},
		NodeChecksum{},
		SilentNode{},
		KeyRequest{},
		KeyReply{},
		KeyCount{},
		NodeResult{},
		Event{},
		Error{},
	} {
		for field := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			words[name] = true
		}
	}
	for code := range statusOf {
		words[string(code)] = true
	}
	for _, recordType := range ResolveTypes() {
		words[recordType] = true
	}
	delete(words, "")
	for word := range words {
		if !strings.Contains(doc, "`"+word+"`") && !strings.Contains(doc, `"`+word+`"`) {
			t.Errorf("docs/API.md does not mention %q", word)
		}
	}
	src, err := os.ReadFile("types_mesh.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`EventType = "([a-z-]+)"`).FindAllSubmatch(src, -1) {
		if !strings.Contains(doc, "`"+string(m[1])+"`") {
			t.Errorf("docs/API.md does not mention the event %s", m[1])
		}
	}
}

func readDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/API.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
