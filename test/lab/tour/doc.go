// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package tour is the guided walk through the lab: load runs, one thing after the other is changed or broken by the
// very command that is shown, and the figures say what became of the requests.
//
// What is counted, what is drawn and what is told are values (Figures, Observation, frame): only world.go touches
// clusters, and only terminal.go a terminal.
package tour
