// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rootless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func notifyOfChildren(c chan<- os.Signal) { signal.Notify(c, unix.SIGCHLD) }

// folderVariable carries the current folder over: nsenter leaves a program in one of the mounts that it came from.
const folderVariable = "ISTHMUS_LAB_ENTERED_FROM"

// aliveFD is held open by the program inside until it ends.
const aliveFD = 3

// Run calls this program again with args inside the place, with the same terminal, and returns its exit code. When ctx
// ends the program inside is asked to end, and waited for.
func (h *Holder) Run(ctx context.Context, args []string) (int, error) {
	if h.UID != os.Geteuid() {
		return 0, fmt.Errorf("the lab belongs to the user with the number %d: work in it as that user", h.UID)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return 0, errors.New("the program `nsenter` is missing, which enters the lab's namespaces: `apt-get install util-linux`")
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	ended, alive, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = ended.Close() }()
	// A language's runtime has many threads, and only a process with one may change its user namespace.
	cmd := exec.Command(nsenter, append([]string{"-t", fmt.Sprint(h.PID), "-U", "--preserve-credentials", "-m", "-n", "-p", "-i", "--", self}, args...)...) //nolint:noctx // see below
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{alive}
	cmd.Env = append(os.Environ(), folderVariable+"="+dir)
	// Ctrl-C reaches all of a terminal's programs: it is the one inside that knows what to do with it.
	signal.Ignore(os.Interrupt)
	err = cmd.Start()
	_ = alive.Close()
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	err = cmd.Wait()
	_, _ = io.Copy(io.Discard, ended) // nsenter may end before the program that it started
	if err := ignoreExit(err); err != nil {
		return 0, err
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 1, nil
}

// Entered settles a program that Run has called. It is to be called first thing in main.
func Entered() error {
	dir, ok := os.LookupEnv(folderVariable)
	if !ok {
		return nil
	}
	unix.CloseOnExec(aliveFD)
	// nsenter ends when it is told to, and this program has to hear of it.
	return errors.Join(os.Unsetenv(folderVariable), os.Chdir(dir), unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0))
}
