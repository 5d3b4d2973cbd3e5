// SPDX-License-Identifier: Apache-2.0

// Package fleet holds the connections to the member clusters: credentials, caches, probes, write queues, and the
// one path by which anything is ever written to a member.
//
//	Ensure(kubeconfig) ─> connection ─┬─ probe  (/version, a transport of its own) ─> State
//	                                  ├─ kinds  (discovery, one informer a kind)   ─> Reader, Handlers.Object
//	Submit(Desired) ─> queue ─ apply ─┘  (compare with the cache, server-side apply) ─> Outcome
//
// Implementation considerations:
//
//   - A member that hangs delays nobody: each has its own transport, rate, workers and informers, and no lock is
//     held across the network. Ensure, Submit, State, Outcome and Reader never wait for the network.
//   - A member that cannot be reached is a state with a wake-up event, not an error with a backoff: its wish is
//     kept, and tried once the probe answers again. Its caches keep serving what was last known.
//   - Each kind has an informer of its own, which starts when the member serves the kind, and which replaces its
//     predecessor only once it has synced. A rotated credential, and a member that returns, are both such a
//     replacement: readers see neither a gap nor an event for what did not change.
//   - Writes are level-triggered: a wish says all objects of one owner, the newest wish wins, and what is in the
//     member already is not written again.
package fleet
