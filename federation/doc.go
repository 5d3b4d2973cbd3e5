// SPDX-License-Identifier: Apache-2.0

// Package federation is the pure core of Isthmus: a snapshot in, a plan out.
//
// Nothing here holds a client, a context, a clock, a logger, a goroutine or an environment variable, and
// nothing depends on map order: the same input gives the same output, byte for byte. That is what lets the
// same code decide, explain, and answer "what if" without touching a cluster.
//
// The behaviour is a list of short named rules, one file a noun.
//
// Who is there, and who owns what:
//
//	owner.go        whose an object is
//	member.go       what is known of a member cluster
//	place.go        where a cluster is, and who runs it
//	export.go       exports merge into an import (KEP-1645)
//	attach.go       which Gateways and listeners a route attaches to
//
// How a service is, in a cluster:
//
//	verdict.go      is it fit: an ordered list of checks
//	health.go       how it leaves and returns over time: endpoints, holds, ramps
//	look.go         looks from one side become a sight
//	probe.go        how an import is looked at: routes in members, and requests
//	probed.go       what is said of that
//	metric.go       answers of a Prometheus become a sight
//	guard.go        how much may be taken out on suspicion
//	decided.go      what routes last decided of services
//
// Where requests go:
//
//	policy.go       which policy holds for a backend (GEP-713, GEP-2649)
//	override.go     which word of a person holds
//	split.go        a distribution over clusters becomes shares, and shares become weights
//	spread.go       tiers, parts and capacities
//	intent.go       what a route means: Services read as imports
//	resolve.go      which import and port a reference means
//	filter.go       what filters a route may have
//	route.go        a hub route becomes one route a member
//	standin.go      backends that stand in for one that nobody serves
//	driver.go       who else drives a route
//	gateway.go      a hub Gateway becomes one Gateway a member
//
// How it gets there, in the mesh:
//
//	service.go      an import becomes what makes it reachable in each member
//	home.go         the share of the cluster that a request entered
//	istio.go        the Istio objects of a remote backend
//	eastwest.go     the gateway between clusters
//	retry.go        which requests are tried again, and where
//	stamp.go        headers by which hops know each other
//
// Rollouts:
//
//	rollout.go           the step machine: an ordered list of rules
//	rollout_step.go      steps
//	rollout_verb.go      words of a person
//	rollout_analysis.go  measurements and verdicts
//	rollout_member.go    how far members have come
//	rollout_standing.go  whether a rollout can run
//	rollout_outlook.go   what it waits for, and what would help
//	overlay.go           what it lays over a route
//	sides.go             a cluster's part is given to its two sides
//	rule_copy.go         copies of rules, for headers and cookies
//	preview.go           a preview under a host name of its own
//
// What is said of it:
//
//	explain.go          a plan in words
//	shift.go            what moved, and why
//	alert.go            what somebody on call wants to hear
//	override_status.go  what became of a person's word
//	recorded.go         what the hub's objects say, read back
//	whatif.go           what would be
package federation
