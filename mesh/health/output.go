package health

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxOutput is how many bytes of the output of a run are kept.
const MaxOutput = 4 << 10

// cutMark is between the two ends of an output that was too long.
const cutMark = "\n[…]\n"

// Output keeps the beginning and the end of what is written to it, MaxOutput bytes in
// all. The zero value is empty. It is not safe for concurrent use.
type Output struct {
	head []byte
	tail []byte // the last bytes, at most twice as many as are kept
	all  int64
}

const half = (MaxOutput - len(cutMark)) / 2

// Write implements io.Writer. It never fails, so that whoever writes never waits.
func (o *Output) Write(b []byte) (int, error) {
	n := len(b)
	o.all += int64(n)
	if room := half - len(o.head); room > 0 {
		k := min(room, len(b))
		o.head, b = append(o.head, b[:k]...), b[k:]
	}
	if len(b) > half {
		b = b[len(b)-half:]
	}
	if o.tail = append(o.tail, b...); len(o.tail) > 2*half {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-half:]...)
	}
	return n, nil
}

// String returns what is kept, cleaned.
func (o *Output) String() string {
	if o.all <= int64(2*half) {
		return Clean(string(o.head) + string(o.tail))
	}
	return Clean(string(o.head) + cutMark + string(o.tail[max(0, len(o.tail)-half):]))
}

// Clean makes a text of anything: at most MaxOutput bytes of valid UTF-8, with line ends and
// tabs but no other control characters, and nothing that moves a terminal.
func Clean(s string) string {
	if len(s) > MaxOutput {
		s = s[:half] + cutMark + s[len(s)-half:]
	}
	s = strings.ToValidUTF8(s, "")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
