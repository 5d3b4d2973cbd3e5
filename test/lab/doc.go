// SPDX-License-Identifier: Apache-2.0

// Package lab runs real clusters on one Linux machine, without containers: a hub and member clusters
// with an etcd, a kube-apiserver and a kube-controller-manager each, Istio and Envoy in the members,
// pods as processes with an address of their own.
//
// The processes live on when the program that started them ends: what is known of them is in the
// lab's folder (package state), and what is not known any more is found by its network namespace.
package lab
