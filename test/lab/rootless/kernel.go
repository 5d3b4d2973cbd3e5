// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rootless

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// kernel reads a setting; empty when the kernel does not have it.
func kernel(name string) string {
	data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// explain says what keeps an ordinary user from namespaces of its own, and what to do about it.
func explain(err error, kernel func(string) string) error {
	why := "the kernel or a container around this shell forbids them"
	do := "run the lab as root: `sudo -E env PATH=$PATH make lab`"
	allow := func(setting string) {
		why = fmt.Sprintf("%s is %s", strings.Split(setting, "=")[0], kernel(strings.Split(setting, "=")[0]))
		do = fmt.Sprintf("allow them (`sudo sysctl -w %s`), or %s", setting, do)
	}
	switch {
	case kernel("user.max_user_namespaces") == "0":
		allow("user.max_user_namespaces=15000")
	case kernel("kernel.unprivileged_userns_clone") == "0":
		allow("kernel.unprivileged_userns_clone=1")
	case kernel("kernel.apparmor_restrict_unprivileged_userns") == "1":
		allow("kernel.apparmor_restrict_unprivileged_userns=0")
	case errors.Is(err, unix.ENOSPC):
		why = "there are as many as user.max_user_namespaces allows"
	case errors.Is(err, unix.EINVAL):
		why = "the kernel has none (CONFIG_USER_NS)"
	}
	return fmt.Errorf("the lab without root needs user namespaces, and %s: %s (%w)", why, do, err)
}

// Limits are what the lab cannot do without root, in words.
func Limits() []string {
	return []string{
		"The clusters' addresses exist inside only: work in `isthmus-lab shell`, or prefix a command with `isthmus-lab exec --`.",
		"All pods run as you, whatever runAsUser, runAsGroup and fsGroup say: they are kept apart by mounts, networks and process numbers, not by users. Sidecars need users, and do not work.",
		"Pods see the machine's folders but /home, /root and the like, and can write only where you could, in their volumes and in a few common folders.",
		"Nothing inside reaches the internet. What has to be downloaded or built is so before the lab starts.",
		"Process numbers in lab.json are those inside.",
	}
}
