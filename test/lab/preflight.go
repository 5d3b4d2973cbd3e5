// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

// marker names the folder of the machine's one lab, where every checkout finds it.
const marker = "/run/isthmus-lab"

// preflight looks for what would make the start fail later, and less clearly.
func preflight(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root, for network namespaces and overlay mounts: run it with sudo, e.g. `sudo -E make lab`")
	}
	if err := foreignLab(dir); err != nil {
		return err
	}
	return errors.Join(checkNamespaces(), checkOverlay(), checkRoutes(), checkPrograms())
}

// requireRoom looks whether a new lab of so many clusters has room in dir. One that runs has taken its room already.
func requireRoom(dir string, clusters int) error {
	// etcd alone sets aside 64 MB for its log, twice.
	const shared, each = 500_000_000, 200_000_000
	return tools.RequireSpace(dir, shared+uint64(clusters)*each, "the lab") // #nosec G115 -- a count
}

// bootID tells one run of the machine from the next; empty where the kernel does not say.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// ended says why a recorded lab cannot be gone on with; empty when it can.
func ended(lab *state.Lab) (why string) {
	if lab.BootID != bootID() {
		return "the machine was started anew since"
	}
	if !lab.Ready {
		return "its start did not finish"
	}
	for _, c := range lab.Clusters {
		if !network.Exists(c.NetNS) {
			return fmt.Sprintf("the network namespace of %s is gone", c.Name)
		}
	}
	return ""
}

// foreignLab refuses to start beside a lab of another folder: the two would share their addresses.
func foreignLab(dir string) error {
	owner, err := os.ReadFile(marker)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	other := strings.TrimSpace(string(owner))
	if other == dir {
		return nil
	}
	names, err := ownNamespaces()
	if err != nil || len(names) == 0 {
		return err
	}
	return fmt.Errorf("a lab runs on this machine already, in %s: use that one, or end it with `isthmus-lab down --dir %s`", other, other)
}

// ownNamespaces returns the namespaces of the machine's lab, without those of tests.
func ownNamespaces() ([]string, error) {
	all, err := network.Namespaces(network.Prefix)
	var names []string
	for _, name := range all {
		if !strings.HasPrefix(name, network.TestPrefix) {
			names = append(names, name)
		}
	}
	return names, err
}

func checkNamespaces() error {
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		return errors.New("the kernel has no network namespaces (CONFIG_NET_NS): the lab cannot keep its clusters apart on this machine")
	}
	return nil
}

func checkOverlay() error {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if strings.Contains(string(data), "\toverlay\n") {
		return nil
	}
	// A module that is not loaded yet is loaded by the first mount: an attempt without options is enough.
	err = unix.Mount("overlay", "/", "overlay", 0, "")
	if errors.Is(err, unix.ENODEV) {
		return errors.New("the kernel has no overlayfs: `modprobe overlay`, or use a machine whose kernel has it")
	}
	return nil
}

// checkPrograms looks for what the clusters' own programs call.
func checkPrograms() error {
	if _, err := exec.LookPath("nft"); err != nil {
		return errors.New("the program `nft` is missing, by which kube-proxy writes its rules: `apt-get install nftables`")
	}
	return nil
}

// checkRoutes looks whether the machine itself uses the lab's addresses.
func checkRoutes() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.To4() == nil {
			continue
		}
		ip := r.Dst.IP.To4()
		if ones, _ := r.Dst.Mask.Size(); ones < 16 || ip[0] != 10 || ip[1] < 231 || ip[1] > 234 {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err == nil && link.Attrs().Name != network.Backbone {
			return fmt.Errorf("this machine has a route to %s by %s: the lab needs 10.231.0.0/16 to 10.234.0.0/16 for itself", r.Dst, link.Attrs().Name)
		}
	}
	return nil
}

// mark says that this machine's lab is the one in dir.
func mark(dir string) error { return os.WriteFile(marker, []byte(dir+"\n"), 0o644) } // for everybody

// sameLab says how a running lab differs from the one that is asked for; empty when it does not.
func sameLab(running, asked *state.Lab) string {
	names := func(l *state.Lab) string {
		var all []string
		for _, c := range l.Clusters {
			name := c.Name
			if c.Role == state.RoleHub && c.Member {
				name += " (a member, too)"
			}
			all = append(all, name)
		}
		return strings.Join(all, ", ")
	}
	switch {
	case names(running) != names(asked):
		return fmt.Sprintf("it has the clusters %s, not %s", names(running), names(asked))
	case running.Mesh != asked.Mesh:
		return fmt.Sprintf("its mesh is %v, not %v", running.Mesh, asked.Mesh)
	case running.PilotDebounce != asked.PilotDebounce:
		return fmt.Sprintf("istiod's debounce is %q, not %q", running.PilotDebounce, asked.PilotDebounce)
	}
	return ""
}

// prepareDir makes the lab's folder.
func prepareDir(dir string) error {
	return os.MkdirAll(filepath.Join(dir, "logs"), 0o755)
}
