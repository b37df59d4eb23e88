package vm

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func anyJob() Job {
	return Job{
		Hostname: "vm", Modules: []string{"/modules/a.ko"},
		Programs: []Run{{
			Path: "/tests/a.test", Dir: "/work", Timeout: time.Minute, Collect: []string{"/work/c.out"},
			Args: []string{"-test.run=^(A|B)$ x", "", `"'\` + "\n\t$(rm -rf /) `x` ü", "-x=1=2"}, // no shell sees them
			Env:  []string{"A=b c=d", "EMPTY="},
		}},
	}
}

func TestJobRoundTrip(t *testing.T) {
	want := anyJob()
	text, err := EncodeJob(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeJob(text); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestBadJobs(t *testing.T) {
	for want, spoil := range map[string]func(*Job){
		"no programs":               func(j *Job) { j.Programs = nil },
		`path "a" is not absolute`:  func(j *Job) { j.Programs[0].Path = "a" },
		`dir "" is not absolute`:    func(j *Job) { j.Programs[0].Dir = "" },
		"must be above zero":        func(j *Job) { j.Programs[0].Timeout = 0 },
		`env "A": want NAME=value`:  func(j *Job) { j.Programs[0].Env = []string{"A"} },
		`env "=b": want NAME=value`: func(j *Job) { j.Programs[0].Env = []string{"=b"} },
		`"\x00": no zero bytes`:     func(j *Job) { j.Programs[0].Args = []string{"\x00"} },
		`nothing but UTF-8`:         func(j *Job) { j.Programs[0].Env = []string{"A=\xff"} },
		"programs[1]":               func(j *Job) { j.Programs = append(j.Programs, Run{}) },
	} {
		j := anyJob()
		spoil(&j)
		if _, err := EncodeJob(j); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for _, text := range []string{"", "{", `{"programs":[]}`, `{"programs":[],"more":1}`, `[]`, `{} {}`} {
		if j, err := DecodeJob([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, j)
		}
	}
}

func FuzzDecodeJob(f *testing.F) {
	text, err := EncodeJob(anyJob())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"programs":[{"path":"/a","dir":"/","timeout":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := DecodeJob(b)
		if err != nil {
			return
		}
		text, err := EncodeJob(j)
		if err != nil {
			t.Fatalf("%+v was read but not written: %v", j, err)
		}
		if again, err := DecodeJob(text); err != nil || !reflect.DeepEqual(again, j) {
			t.Fatalf("%+v, %v, want %+v", again, err, j)
		}
	})
}
