// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// idMap says which users or groups exist in a user namespace (user_namespaces(7)).
type idMap []struct{ first, count int }

// The maps of this process. On a machine's own namespace they hold every id; where the lab runs without root they may
// hold a single one, which is 0 inside.
var (
	userMap  = sync.OnceValue(func() idMap { return readIDMap("/proc/self/uid_map") })
	groupMap = sync.OnceValue(func() idMap { return readIDMap("/proc/self/gid_map") })
)

func readIDMap(file string) idMap {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return parseIDMap(data)
}

func parseIDMap(data []byte) idMap {
	var m idMap
	for line := range bytes.Lines(data) {
		var inside, outside, count int
		if _, err := fmt.Sscan(string(line), &inside, &outside, &count); err == nil {
			m = append(m, struct{ first, count int }{inside, count})
		}
	}
	return m
}

func (m idMap) has(id int) bool {
	for _, r := range m {
		if id >= r.first && id-r.first < r.count {
			return true
		}
	}
	return m == nil // a kernel without user namespaces has no map, and every id
}

// existing replaces a user and a group that do not exist here by the lab's own, 0: a pod that names one runs all the
// same, with fewer walls between the pods.
func (u userSpec) existing(users, groups idMap) userSpec {
	if !users.has(u.UID) {
		u.UID = 0
	}
	if !groups.has(u.GID) {
		u.GID = 0
	}
	return u
}

// groupsAreFixed says that no process here may change its supplementary groups: an ordinary user could lose by it a
// group that denies.
var groupsAreFixed = sync.OnceValue(func() bool {
	data, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && bytes.HasPrefix(data, []byte("deny"))
})

func setGroups(groups []int) error {
	if groupsAreFixed() {
		return nil
	}
	return syscall.Setgroups(groups)
}
