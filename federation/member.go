// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Member is what is known of one member cluster when a plan is made.
type Member struct {
	// Name of the MemberCluster.
	Name string
	// Region and Zone, empty where unknown.
	Region, Zone string
	// GatewayClassName is the class of the Gateways generated in it.
	GatewayClassName string
	// TrustDomain of its mesh.
	TrustDomain string
	// EastWest is where the other members reach it; the zero value while that is not known.
	EastWest Address
	// Reachable is whether its API server answers now. Losing it moves no traffic; it only says whether what
	// is known is fresh.
	Reachable bool
	// Synced is whether its contents have been read in this process. While they have not, an absent export is
	// not a withdrawn one.
	Synced bool
	// NoEnvoyFilter is whether it is known to lack Istio's EnvoyFilter, without which its proxies do not retry.
	NoEnvoyFilter bool
}

// Address is a host and a port.
type Address struct {
	// Host is an IP address or a DNS name.
	Host string
	// Port from 1 to 65535.
	Port int32
}

// IsZero tells whether nothing is known.
func (a Address) IsZero() bool { return a.Host == "" }

// IsIP tells whether Host is an IP address rather than a name to be looked up.
func (a Address) IsIP() bool {
	_, err := netip.ParseAddr(a.Host)
	return err == nil
}

// String is host:port, with brackets around an IPv6 address; empty for the zero value.
func (a Address) String() string {
	if a.IsZero() {
		return ""
	}
	if ip, err := netip.ParseAddr(a.Host); err == nil && ip.Is6() {
		return "[" + a.Host + "]:" + strconv.Itoa(int(a.Port))
	}
	return a.Host + ":" + strconv.Itoa(int(a.Port))
}

// ParseAddress reads what Address.String writes; the zero value where it is anything else, such as an IPv6 address without brackets.
func ParseAddress(s string) Address {
	colon := strings.LastIndex(s, ":")
	if colon < 0 {
		return Address{}
	}
	port, err := strconv.ParseUint(s[colon+1:], 10, 16)
	if a := (Address{Host: strings.Trim(s[:colon], "[]"), Port: int32(port)}); err == nil && port > 0 && a.String() == s {
		return a
	}
	return Address{}
}

// sortedBy is a list in the order of names. Callers give sorted lists; a plan must not depend on their keeping to it.
func sortedBy[T any](list []T, name func(T) string) []T {
	byName := func(a, b T) int { return strings.Compare(name(a), name(b)) }
	if slices.IsSortedFunc(list, byName) {
		return list
	}
	return slices.SortedStableFunc(slices.Values(list), byName)
}

// gatewayIdentity is the SPIFFE path, without scheme, of the proxy that Istio deploys for a Gateway: it names
// the service account "<gateway>-<class>" (its automated deployment).
func (m Member) gatewayIdentity(namespace, gateway string) string {
	return m.TrustDomain + "/ns/" + namespace + "/sa/" + gateway + "-" + m.GatewayClassName
}

// eastWestIdentity is the identity with which the member's east-west gateway answers.
func (m Member) eastWestIdentity() string {
	return m.gatewayIdentity(v1alpha1.SystemNamespace, EastWestGatewayName)
}
