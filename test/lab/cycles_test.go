// SPDX-License-Identifier: Apache-2.0

//go:build linux && cycles

package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/tools"
)

// These tests start and end labs of their own, in the machine's one place for a lab: no other may run. ISTHMUS_CYCLES is how often
// (10), ISTHMUS_CYCLES_ARGS what `up` is given ("--no-mesh").

func TestUpAndDownLeaveNothing(t *testing.T) {
	c := newCycles(t)
	rounds := 10
	if s := os.Getenv("ISTHMUS_CYCLES"); s != "" {
		var err error
		rounds, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	for i := range rounds {
		began := time.Now()
		require.NoError(t, c.command("up").Run(), c.said())
		up := time.Since(began)
		inside := namespaceFiles(t)
		if i%2 == 1 { // every other lab crashes as a whole before it is ended
			crash(t)
		}
		began = time.Now()
		require.NoError(t, c.command("down").Run(), c.said())
		t.Logf("round %d: up %.1f s, down %.1f s", i+1, up.Seconds(), time.Since(began).Seconds())
		c.nothingIsLeft(inside)
	}
}

// A start is killed after each of the lines that it says, and once more after a wait that no line marks; then it is ended, or begun anew.
func TestAStartThatIsKilledAtAnyMomentLeavesNothing(t *testing.T) {
	c := newCycles(t)
	for line := 1; ; line++ {
		finished := c.killAfter(line)
		inside := namespaceFiles(t)
		if line%3 == 0 {
			require.NoError(t, c.command("up").Run(), c.said())
			inside = append(inside, namespaceFiles(t)...)
		}
		require.NoError(t, c.command("down").Run(), c.said())
		t.Logf("killed after line %d: nothing is left", line)
		c.nothingIsLeft(inside)
		if finished {
			return
		}
	}
}

type cycles struct {
	*testing.T
	dir, binary string
	args        []string
	before      []string
	output      strings.Builder
}

func newCycles(t *testing.T) *cycles {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a lab is started")
	}
	root, err := tools.Root()
	require.NoError(t, err)
	c := &cycles{T: t, dir: t.TempDir(), args: strings.Fields("--no-mesh")}
	if s, ok := os.LookupEnv("ISTHMUS_CYCLES_ARGS"); ok {
		c.args = strings.Fields(s)
	}
	c.binary = filepath.Join(t.TempDir(), "isthmus-lab")
	build := exec.Command("go", "build", "-o", c.binary, "./cmd/isthmus-lab")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, foreignLab(c.dir))
	c.before = machine(t)
	t.Cleanup(func() { _ = Down(context.Background(), c.dir, os.Stderr) })
	return c
}

func (c *cycles) command(verb string) *exec.Cmd {
	args := []string{verb, "--dir", c.dir}
	if verb == "up" {
		args = append(args, c.args...)
	}
	cmd := exec.Command(c.binary, args...)
	c.output.Reset()
	cmd.Stdout, cmd.Stderr = &c.output, &c.output
	return cmd
}

func (c *cycles) said() string { return c.output.String() }

// killAfter starts a lab and kills the start after so many lines; it says whether the start was done before.
func (c *cycles) killAfter(lines int) (finished bool) {
	c.Helper()
	cmd := c.command("up")
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	require.NoError(c, err)
	require.NoError(c, cmd.Start())
	scan := bufio.NewScanner(out)
	for range lines {
		if !scan.Scan() {
			require.NoError(c, cmd.Wait())
			return true
		}
	}
	require.NoError(c, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
	return false
}

// crash kills everything in the lab's namespaces.
func crash(t *testing.T) {
	t.Helper()
	names, err := ownNamespaces()
	require.NoError(t, err)
	found, err := process.In(names...)
	require.NoError(t, err)
	require.NotEmpty(t, found)
	require.NoError(t, signal(syscall.SIGKILL, found))
}

func (c *cycles) nothingIsLeft(namespaces []*os.File) {
	c.Helper()
	require.Equal(c, c.before, machine(c.T))
	require.Empty(c, processesIn(c.T, namespaces))
	for _, f := range namespaces {
		require.NoError(c, f.Close())
	}
	left, err := os.ReadDir(c.dir)
	require.NoError(c, err)
	for _, e := range left {
		// A lock's file stays: who deletes it lets two hold the lock.
		require.True(c, e.Name() == "logs" || strings.HasSuffix(e.Name(), ".lock"), "left: %s", e.Name())
	}
}

// namespaceFiles are the network namespaces of the lab that runs; a process in one is found by it even when its name is gone. They are
// held open: the number of one that is gone may be another's at once.
func namespaceFiles(t *testing.T) []*os.File {
	t.Helper()
	names, err := ownNamespaces()
	require.NoError(t, err)
	var files []*os.File
	for _, name := range names {
		f, err := os.Open(network.Path(name))
		require.NoError(t, err)
		files = append(files, f)
	}
	return files
}

func processesIn(t *testing.T, namespaces []*os.File) []string {
	t.Helper()
	var inodes []uint64
	for _, f := range namespaces {
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(int(f.Fd()), &st))
		inodes = append(inodes, st.Ino)
	}
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var found []string
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && slices.Contains(inodes, st.Ino) {
			line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			found = append(found, e.Name()+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// machine is all that a lab may leave in the host's own namespaces.
func machine(t *testing.T) []string {
	t.Helper()
	var all []string
	names, err := network.Namespaces("")
	require.NoError(t, err)
	for _, name := range names {
		all = append(all, "namespace "+name)
	}
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range links {
		all = append(all, "link "+l.Attrs().Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	require.NoError(t, err)
	for _, r := range routes {
		all = append(all, "route "+r.String())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		all = append(all, "mount "+strings.Fields(line)[4])
	}
	conn, err := nftables.New()
	require.NoError(t, err)
	tables, err := conn.ListTables()
	require.NoError(t, err)
	for _, table := range tables {
		all = append(all, fmt.Sprintf("table %d %s", table.Family, table.Name))
	}
	if _, err := os.Stat(marker); err == nil {
		all = append(all, "file "+marker)
	}
	slices.Sort(all)
	return all
}
