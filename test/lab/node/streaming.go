// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

func (a *agent) serveExec(w http.ResponseWriter, r *http.Request) {
	if options, ok := a.remoteCommand(w, r); ok {
		remotecommand.ServeExec(w, r, &session{agent: a, request: r}, "", "", "", r.URL.Query()["command"],
			options, streamIdle, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	}
}

func (a *agent) serveAttach(w http.ResponseWriter, r *http.Request) {
	if options, ok := a.remoteCommand(w, r); ok {
		remotecommand.ServeAttach(w, r, &session{agent: a, request: r}, "", "", "",
			options, streamIdle, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	}
}

// remoteCommand reads what streams are wanted, and answers by itself when the container does not run.
func (a *agent) remoteCommand(w http.ResponseWriter, r *http.Request) (*remotecommand.Options, bool) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, false
	}
	_, c, err := a.find(r)
	if err == nil && c.running() == nil {
		err = fmt.Errorf("container not found (%q): it does not run", c.spec.Name)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil, false
	}
	return options, true
}

func (a *agent) servePortForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := a.findPod(r)
	if p == nil || !p.address().IsValid() {
		http.Error(w, "pod does not exist, or has no network yet", http.StatusNotFound)
		return
	}
	portforward.ServePortForward(w, r, forwarder{p}, "", "", options, streamIdle, remotecommand.DefaultStreamCreationTimeout,
		portforward.SupportedProtocols)
}

type forwarder struct{ pod *pod }

func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	return f.pod.forward(ctx, port, stream)
}

// session is one exec or attach. It looks the container up when its streams are there.
type session struct {
	agent   *agent
	request *http.Request
}

func (s *session) process() (*container, *process, error) {
	_, c, err := s.agent.find(s.request)
	if err != nil {
		return nil, nil, err
	}
	proc := c.running()
	if proc == nil {
		return nil, nil, errors.New("the container has ended meanwhile")
	}
	return c, proc, nil
}

// ExecInContainer is remotecommand's Executor; names and uid are the request's.
//
//nolint:revive // upstream's interface
func (s *session) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, stderr io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	c, proc, err := s.process()
	if err != nil {
		return err
	}
	return c.exec(ctx, proc, execution{argv: cmd, in: in, out: out, err: stderr, tty: tty, resize: resize})
}

// AttachContainer is remotecommand's Attacher.
//
//nolint:revive // upstream's interface
func (s *session) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, stderr io.WriteCloser,
	_ bool, resize <-chan remotecommand.TerminalSize) error {
	c, proc, err := s.process()
	if err != nil {
		return err
	}
	return c.attach(ctx, proc, attachment{in: in, out: out, err: stderr, resize: resize})
}

// find returns the container that a request names.
func (a *agent) find(r *http.Request) (*pod, *container, error) {
	p := a.findPod(r)
	if p == nil {
		return nil, nil, fmt.Errorf("pod %q does not exist on this node", r.PathValue("pod"))
	}
	name, _ := url.PathUnescape(r.PathValue("container"))
	for _, c := range p.containers {
		if c.spec.Name == name {
			return p, c, nil
		}
	}
	return nil, nil, fmt.Errorf("container %q not found in pod %q", name, p.spec.Name)
}

// findPod returns the pod that a request names: of several of one name, the one that is not ending.
func (a *agent) findPod(r *http.Request) *pod {
	var found *pod
	for _, p := range a.podList() {
		if p.spec.Namespace != r.PathValue("namespace") || p.spec.Name != r.PathValue("pod") {
			continue
		}
		if uid := r.PathValue("uid"); uid != "" && uid != string(p.spec.UID) {
			continue
		}
		if found == nil || found.life.Err() != nil {
			found = p
		}
	}
	return found
}
