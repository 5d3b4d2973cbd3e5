// SPDX-License-Identifier: Apache-2.0

// Package controllers connects the pure core to the clusters: each reconciler gathers a snapshot from caches,
// calls the core, hands every member its part, and reports once.
//
//	gather_*.go   caches and hub objects -> a snapshot
//	fanout.go     a plan -> the members' own queues, and how far each has come
//	report_*.go   what was decided -> status, RoutePlans, Events, metrics
//	prober.go     looks at services over the network (look.go), remembered for the next snapshot
//	watches.go    a changed object in a member -> the key that it concerns
//
// Implementation considerations: a reconciler never waits for a member. What it submits is written by the
// member's own queue, whose outcome wakes the key again; so one slow member delays nobody's plan. Drift needs
// no code here: what is edited or deleted in a member is healed by the queue that holds the wish.
package controllers
