// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// Down ends the lab of folder dir and leaves nothing behind but its logs: no process, namespace, link,
// rule or mount. It does not need lab.json, and can be repeated.
func Down(ctx context.Context, dir string, out io.Writer) error {
	o := Options{Dir: dir}
	if err := o.completeDir(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("ending the lab needs root: run it with sudo, e.g. `sudo -E make lab-down`")
	}
	if err := foreignLab(o.Dir); err != nil {
		return err
	}
	if err := prepareDir(o.Dir); err != nil {
		return err
	}
	unlock, err := onlyOne(o.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	l := &Lab{Dir: o.Dir, out: out, began: time.Now()}
	if err := l.clear(ctx); err != nil {
		return err
	}
	l.say("the lab is down; its logs are in %s", filepath.Join(l.Dir, "logs"))
	return nil
}

// Down ends the lab.
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.Dir, l.out) }

// clear removes everything of the machine's lab, whatever state it is in.
func (l *Lab) clear(ctx context.Context) error {
	recorded := &state.Lab{}
	if lab, err := l.State(); err == nil && lab.BootID == bootID() {
		recorded = lab
	}
	// The file goes first: nobody who dies late can write it again, nor take a dying lab for one.
	if err := state.Remove(l.Dir); err != nil {
		return err
	}
	if err := killAll(ctx, recorded); err != nil {
		return err
	}
	if err := unmountBelow(l.Dir); err != nil {
		return err
	}
	if err := network.Down(); err != nil {
		return err
	}
	return l.removeFiles()
}

// killAll ends the recorded processes and all that live in the lab's namespaces. Nothing is asked to
// end in peace: what it would save is deleted next. Node agents go first, or they would start again
// what dies.
func killAll(ctx context.Context, recorded *state.Lab) error {
	agents := slices.Clone(recorded.Processes)
	agents = slices.DeleteFunc(agents, func(p state.Process) bool { return p.Component != state.NodeAgent })
	if err := kill(ctx, agents); err != nil {
		return err
	}
	if err := kill(ctx, recorded.Processes); err != nil {
		return err
	}
	// More than once: a process that is found may be about to start another.
	for range 10 {
		names, err := ownNamespaces()
		if err != nil {
			return err
		}
		found, err := process.In(names...)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return nil
		}
		if err := kill(ctx, found); err != nil {
			return err
		}
	}
	return errors.New("processes keep appearing in the lab's namespaces: look at `ip netns pids isl-…`")
}

func kill(ctx context.Context, processes []state.Process) error {
	var errs []error
	for _, p := range processes {
		errs = append(errs, process.Signal(p, syscall.SIGKILL))
	}
	return errors.Join(append(errs, process.AwaitEnd(ctx, 15*time.Second, processes))...)
}

// unmountBelow takes off every mount below dir, the innermost first.
func unmountBelow(dir string) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer func() { _ = mounts.Close() }()
	points, err := mountPoints(mounts, dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// mountPoints returns the mount points below dir from a mountinfo (proc(5)), the longest first.
func mountPoints(mountinfo io.Reader, dir string) ([]string, error) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if point := unescape.Replace(fields[4]); strings.HasPrefix(point, dir+string(filepath.Separator)) {
			points = append(points, point)
		}
	}
	slices.SortFunc(points, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	return points, lines.Err()
}

// removeFiles deletes what a lab made, by name: the folder may be anybody's.
func (l *Lab) removeFiles() error {
	errs := []error{l.keepPodLogs()}
	for _, name := range []string{"run", "images", "bin", "kubeconfigs", "kubeconfig"} {
		errs = append(errs, os.RemoveAll(filepath.Join(l.Dir, name)))
	}
	if owner, err := os.ReadFile(marker); err == nil && strings.TrimSpace(string(owner)) == l.Dir {
		errs = append(errs, os.Remove(marker))
	}
	return errors.Join(errs...)
}

// keepPodLogs moves the pods' logs to those of their clusters, as run/ is about to be deleted.
func (l *Lab) keepPodLogs() error {
	dirs, err := filepath.Glob(filepath.Join(l.Dir, "run", "*", "logs"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		pods := filepath.Join(l.logs(filepath.Base(filepath.Dir(dir))), "pods")
		errs = append(errs, os.RemoveAll(pods), os.MkdirAll(filepath.Dir(pods), 0o755), os.Rename(dir, pods))
	}
	return errors.Join(errs...)
}
