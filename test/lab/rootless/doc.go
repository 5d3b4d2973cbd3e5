// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package rootless gives the lab a place where an ordinary user is root: a user namespace with mounts, a network and
// process numbers of its own.
//
//	isthmus-lab up ──> holder: pid 1 of the place, which exists as long as it does
//	                    ├── etcd, API servers, pods …      started by `up` inside
//	                    └── /run and the network are empty: the lab's names and addresses meet nobody else's
//	isthmus-lab status, fault, … ──> nsenter into the place ──> the same command there
//
// When the holder ends, whatever way, the kernel ends everything in the place and removes it.
package rootless
