// SPDX-License-Identifier: Apache-2.0

// Package federation is the pure core of Isthmus: a snapshot in, a plan out.
//
// Nothing here holds a client, a context, a clock, a logger, a goroutine or an environment variable, and
// nothing depends on map order: the same input gives the same output, byte for byte. That is what lets the
// same code decide, explain, and answer "what if" without touching a cluster.
//
// The behaviour is a list of short named rules, one file a noun:
//
//	owner.go        whose an object is
//	member.go       what is known of a member cluster
//	export.go       exports merge into an import (KEP-1645)
//	verdict.go      is a service fit in a cluster: an ordered list of checks
//	look.go         looks from one side become a sight
//	guard.go        how much may be taken out on suspicion
//	probe.go        how an import is looked at: routes in members, and requests (probed.go: what is said of it)
//	policy.go       which policy holds for a backend (GEP-713, GEP-2649)
//	split.go        a distribution over clusters becomes shares, and shares become weights
//	resolve.go      which import and port a reference means
//	filter.go       what filters a route may have
//	route.go        a hub route becomes one route a member
//	gateway.go      a hub Gateway becomes one Gateway a member
//	service.go      an import becomes what makes it reachable in each member
//	eastwest.go     the gateway between clusters
//	istio.go        the Istio objects of a remote backend
//	override.go     which word of a person holds, and what became of it (override_status.go)
//	explain.go      a plan in words
package federation
