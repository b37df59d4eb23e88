package state

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// newer is a field as a newer version of meshd may write it into any body.
var newer = putString(nil, 200, "of a newer version")

func TestWithDrainingKeepsEveryOtherField(t *testing.T) {
	e := Endpoint{IP4: netip.MustParseAddr("10.1.0.7"), Weight: 3, Slot: 2, Aliases: []string{"www"}}
	plain := AppendEndpoint(nil, &e)
	for name, body := range map[string][]byte{
		"plain":            plain,
		"newer field":      append(bytes.Clone(newer), plain...),
		"drains already":   putUint(bytes.Clone(plain), tagDraining, 1),
		"said not to":      putField(bytes.Clone(plain), tagDraining, 0),
		"unknown protocol": putField(bytes.Clone(plain), tagPort, 0, 80, 132),
	} {
		t.Run(name, func(t *testing.T) {
			drained, err := WithDraining(body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseEndpoint(string(drained))
			if err != nil || !got.Draining || got.Weight != 3 || got.Slot != 2 || len(got.Aliases) != 1 {
				t.Errorf("%+v %v", got, err)
			}
			rest := func(b []byte) (fields [][]byte) {
				_ = eachField(string(b), func(tag byte, v string) error {
					if tag != tagDraining {
						fields = append(fields, append([]byte{tag}, v...))
					}
					return nil
				})
				return fields
			}
			if was, is := rest(body), rest(drained); !bytes.Equal(bytes.Join(was, nil), bytes.Join(is, nil)) {
				t.Errorf("fields were %q, are %q", was, is)
			}
		})
	}
	if _, err := WithDraining([]byte{tagSlot, 9}); err == nil {
		t.Error("a malformed body was edited")
	}
}

// A person changes the settings of a service on a node of an older version than
// the one that set them first.
func TestSettingsOfANewerVersionSurviveAChange(t *testing.T) {
	f := newFleet(pool28, "a", "b")
	f.run("web", 1, 0, 1)
	body := string(append(AppendSettings(nil, SettingsClaim{Settings: Settings{TTL: time.Minute}, Lamport: 3}), newer...))
	if _, err := f.hosts[1].table.Commit([]Change{{Kind: KindSettings, Key: "web", Body: body}}); err != nil {
		t.Fatal(err)
	}
	f.exchange(t, f.hosts...)
	f.hosts[0].carrier.Services["web"].Settings = &Settings{TTL: time.Hour}
	f.carry(t, f.hosts[0])
	own := f.hosts[0].table.ownEntry(KindSettings, "web")
	c, err := ParseSettings(own.Body())
	if err != nil || c.TTL != time.Hour || !strings.HasSuffix(own.Body(), string(newer)) {
		t.Errorf("%q is stated: %+v %v", own.Body(), c, err)
	}
}

// A claim that is changed here, as by a person who pins an address, keeps what a
// newer version wrote into it.
func TestClaimsOfANewerVersionSurviveAPin(t *testing.T) {
	f := newFleet(pool28, "a", "b")
	f.run("web", 1, 0, 1)
	claim := VIPClaim{Service: "web", VIP4: netip.MustParseAddr("10.9.0.3"), Birth: 3}
	body := string(append(AppendVIPClaim(nil, claim), newer...))
	if _, err := f.hosts[1].table.Commit([]Change{{Kind: KindVIP, Key: "web", Body: body}}); err != nil {
		t.Fatal(err)
	}
	f.exchange(t, f.hosts...)
	f.hosts[0].carrier.Services["web"].PinVIP = netip.MustParseAddr("10.9.0.9")
	f.carry(t, f.hosts[0])
	own := f.hosts[0].table.ownEntry(KindVIP, "web")
	c, err := ParseVIPClaim("web", own.Body())
	if err != nil || !c.Pinned || !strings.HasSuffix(own.Body(), string(newer)) {
		t.Errorf("%q is stated: %+v %v", own.Body(), c, err)
	}
}
