// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ContainerMain is the entry of the hidden re-exec, `<program> container-init`. It becomes the
// container's program, or runs one inside a container that exists, and does not return.
func ContainerMain() {
	// Namespaces, users and privileges belong to threads: everything happens on this one.
	runtime.LockOSThread()
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(errorFD)
	unix.CloseOnExec(consoleFD)
	spec, err := readOrder()
	if err == nil {
		if spec.JoinPID != 0 {
			err = join(spec)
		} else {
			err = become(spec)
		}
	}
	_, _ = os.NewFile(errorFD, "error").WriteString(err.Error())
	var command *commandError
	if errors.As(err, &command) {
		os.Exit(exitCommand)
	}
	os.Exit(exitNode)
}

func readOrder() (initSpec, error) {
	var spec initSpec
	in := os.NewFile(specFD, "order")
	defer func() { _ = in.Close() }()
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return spec, fmt.Errorf("%s is called by the lab's node only: %w", initCommand, err)
	}
	return spec, nil
}

// become makes the container around this process and replaces it by the container's program.
func become(spec initSpec) error {
	unix.Umask(0o022)
	if err := makeRoot(spec.Root); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Root.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return &commandError{fmt.Errorf("workingDir: %w", err)}
	}
	if spec.Root.ReadOnly {
		if err := spec.Root.protect(); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if spec.TTY {
		if err := takeConsole(spec.User); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
	}
	if err := errors.Join(spec.User.restrict(), spec.User.become()); err != nil {
		return err
	}
	if err := os.Chdir(spec.Dir); err != nil {
		return &commandError{fmt.Errorf("workingDir: %w", err)}
	}
	program, err := lookPath(spec.Argv[0], spec.Env)
	if err != nil {
		return err
	}
	return notRun(program, unix.Exec(program, spec.Argv, spec.Env))
}

// notRun explains why a program could not be executed.
func notRun(program string, err error) error {
	if why := CheckProgram(program); why != nil {
		return &commandError{fmt.Errorf("exec: %w", why)}
	}
	return &commandError{fmt.Errorf("exec %s: %w", program, err)}
}

// restrict limits what this thread, and whatever it starts, may become.
func (u userSpec) restrict() error {
	if u.DropCapabilities {
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	if u.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("forbid new privileges: %w", err)
		}
	}
	return nil
}

// become gives up root's rights. Groups come first: a user may not change them.
func (u userSpec) become() error {
	if err := setGroups(u.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setgid(u.GID); err != nil {
		return fmt.Errorf("set group %d: %w", u.GID, err)
	}
	if err := syscall.Setuid(u.UID); err != nil {
		return fmt.Errorf("set user %d: %w", u.UID, err)
	}
	return nil
}

// lookPath finds a program by the container's own PATH: the agent's means nothing here.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := defaultPath
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	return "", &commandError{fmt.Errorf("exec: %q: executable file not found in the container's PATH %s", name, path)}
}

// join runs a program inside a container that exists, as its child, and ends with its exit code.
func join(spec initSpec) error {
	groupsAreFixed() // to be asked here: in there /proc knows nothing of this process
	// A thread that shares its root with others cannot enter a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := enter(spec.JoinPID, "net", "ipc", "uts", "pid", "mnt"); err != nil {
		return err
	}
	if err := spec.User.restrict(); err != nil {
		return err
	}
	program, err := lookPath(spec.Argv[0], spec.Env)
	if err != nil {
		return err
	}
	code, err := runChild(program, spec)
	if err != nil {
		return notRun(program, err)
	}
	os.Exit(code)
	return nil
}

// runChild runs a program to its end. The agent ends one that takes too long by SIGTERM to this
// process: a parent-death signal would not do, since from another pid namespace the parent cannot be
// told from a dead one.
func runChild(program string, spec initSpec) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, program)
	cmd.Args, cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = spec.Argv, spec.Env, spec.Dir, os.Stdin, os.Stdout, os.Stderr
	groups := make([]uint32, 0, len(spec.User.Groups))
	for _, g := range spec.User.Groups {
		groups = append(groups, uint32(g))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(spec.User.UID), Gid: uint32(spec.User.GID), Groups: groups, NoSetGroups: groupsAreFixed()},
	}
	if spec.TTY {
		terminal, err := handConsole(spec.User)
		if err != nil {
			return 0, fmt.Errorf("terminal: %w", err)
		}
		defer func() { _ = terminal.Close() }()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_ = unix.Close(errorFD) // it runs
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		_ = f.Close() // who reads them waits for the program's end, not for this one's
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return exitNode, nil
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return 128 + int(syscall.SIGKILL), nil
}

// enter moves this thread into the namespaces of a process. All are opened first: after the mount
// namespace is entered, /proc is another.
func enter(pid int, kinds ...string) error {
	fds := make([]int, 0, len(kinds))
	for _, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("the container has ended: %w", err)
		}
		fds = append(fds, fd)
	}
	for i, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter %s namespace: %w", kinds[i], err)
		}
		_ = unix.Close(fd)
	}
	return nil
}
