package state

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestPoolsAsDocumented checks that the manuals and the errors name the bounds of
// pools that are checked (S17).
func TestPoolsAsDocumented(t *testing.T) {
	for path, says := range map[string]string{
		"../docs/API.md": fmt.Sprintf("an IPv4 CIDR from /%d to /%d, `subnet6` an IPv6 CIDR from /%d to /%d", MinPool4,
			MaxPool4, MinPool6, MaxPool6),
		"../docs/DESIGN.md": fmt.Sprintf("IPv4 /%d\n     to /%d, IPv6 /%d to /%d", MinPool4, MaxPool4, MinPool6, MaxPool6),
	} {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("the documents are not on this machine")
		}
		if err != nil || !strings.Contains(string(text), says) {
			t.Errorf("%s does not say %q (%v)", path, says, err)
		}
	}
	if err := checkPool(netip.PrefixFrom(netip.MustParseAddr("10.96.0.0"), MaxPool4), IPv4); err != nil {
		t.Error(err)
	}
	err := checkPool(netip.PrefixFrom(netip.MustParseAddr("10.96.0.0"), MaxPool4+1), IPv4)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("/%d", MaxPool4)) {
		t.Errorf("too small a pool: %v", err)
	}
}
