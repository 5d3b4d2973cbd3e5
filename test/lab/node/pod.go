// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/test/lab/network"
)

// shutdownGrace bounds the grace of pods when the agent itself ends: `down` has to be quick.
const shutdownGrace = 5 * time.Second

// refreshEvery is how often volumes are brought up to date and how often a failing start is tried.
const (
	refreshEvery = 20 * time.Second
	prepareRetry = 500 * time.Millisecond
)

// Why a pod's life ends.
var (
	errDeleted  = errors.New("the pod is being deleted")
	errGone     = errors.New("the pod was removed from the API server")
	errShutdown = errors.New("the node agent ends")
)

// pod is one Pod of the node through its life:
//
//	network, volumes ─> init containers, one by one ─> main containers ─> all ended ─> files and network removed
//	        └───────────────── deletion, or the agent's end, from any point ──────────────^
//
// One goroutine walks it (run), one a container keeps that running, and one writes the status.
type pod struct {
	agent   *agent
	spec    *corev1.Pod // as it was at the start; what can change is in latest
	dir     string
	netns   string
	volumes *volumes
	life    context.Context // ends when the pod has to
	end     context.CancelCauseFunc
	known   context.Context // ends when the API server has the pod no more, or the agent ends
	forget  context.CancelFunc
	// hurry is closed when nobody waits for the grace period any more.
	hurry     chan struct{}
	hurryOnce sync.Once
	dirty     chan struct{} // of one element: the status may have changed
	// relabelled is of one element: what the downward API shows may have changed.
	relabelled chan struct{}

	mu         sync.Mutex
	latest     *corev1.Pod // as the API server has it
	ip         netip.Addr
	startTime  metav1.Time
	asked      time.Time    // when the pod was asked to end; zero before
	containers []*container // init containers first, in the pod's order
	phase      stage
	message    string // why the pod does not get on
}

// stage is how far a pod has come.
type stage int

const (
	stagePreparing stage = iota
	stageInitializing
	stageRunning
	stageEnding // asked to end, or ended by itself
	stageEnded  // no process is left
)

func newPod(a *agent, spec *corev1.Pod) *pod {
	p := &pod{
		agent: a, spec: spec, latest: spec, dir: filepath.Join(a.podsDir(), string(spec.UID)),
		netns: network.PodNamespace(string(spec.UID)), hurry: make(chan struct{}), dirty: make(chan struct{}, 1), relabelled: make(chan struct{}, 1),
		startTime: metav1.Now(),
	}
	if spec.Status.StartTime != nil {
		p.startTime = *spec.Status.StartTime
	}
	// Not a child of the agent's context: the agent ends its pods itself, and says why.
	p.life, p.end = context.WithCancelCause(context.Background())
	p.known, p.forget = context.WithCancel(a.ctx)
	p.volumes = newVolumes(filepath.Join(p.dir, "volumes"), a.objects, a.clock, p.environment)
	for i := range spec.Spec.InitContainers {
		c := &spec.Spec.InitContainers[i]
		p.containers = append(p.containers, newContainer(p, c, true, statusOf(spec.Status.InitContainerStatuses, c.Name)))
	}
	for i := range spec.Spec.Containers {
		c := &spec.Spec.Containers[i]
		p.containers = append(p.containers, newContainer(p, c, false, statusOf(spec.Status.ContainerStatuses, c.Name)))
	}
	return p
}

func statusOf(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// update takes the pod as the API server has it now.
func (p *pod) update(latest *corev1.Pod) {
	p.mu.Lock()
	before := p.latest
	if newer(latest, before) { // the watch may lag behind what was written
		p.latest = latest
	}
	p.mu.Unlock()
	if !maps.Equal(before.Labels, latest.Labels) || !maps.Equal(before.Annotations, latest.Annotations) {
		wake(p.relabelled)
	}
	if len(latest.Spec.EphemeralContainers) > len(before.Spec.EphemeralContainers) {
		p.event(corev1.EventTypeWarning, "NotSupported", "ephemeral containers are not started: `kubectl exec` finds the machine's own programs in each container")
	}
	if latest.DeletionTimestamp != nil {
		p.end(errDeleted)
		if s := latest.DeletionGracePeriodSeconds; s != nil && *s == 0 {
			p.stopWaiting()
		}
	}
	p.touch()
}

// removed says that the API server no longer has the pod.
func (p *pod) removed() {
	p.end(errGone)
	p.stopWaiting()
	p.forget()
}

func (p *pod) stopWaiting() { p.hurryOnce.Do(func() { close(p.hurry) }) }

// change changes what the status is computed from, and has the status written.
func (p *pod) change(f func()) {
	p.mu.Lock()
	f()
	p.mu.Unlock()
	p.touch()
}

func (p *pod) touch() { wake(p.dirty) }

// wake fills a channel of one element.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// advance moves the pod on. It never goes back: an end that has begun stays the last word.
func (p *pod) advance(s stage) { p.change(func() { p.phase = max(p.phase, s) }) }

func (p *pod) event(kind, reason, message string) {
	p.agent.events.Event(p.spec, kind, reason, message)
}

// run lives the pod's life; it returns when nothing of the pod is left.
func (p *pod) run() {
	if !terminal(p.spec) {
		// Readiness goes first when the end begins, before any process hears of it.
		unwatch := context.AfterFunc(p.life, func() {
			p.change(func() { p.asked = time.Now() })
			p.advance(stageEnding)
		})
		go p.writeStatus(p.known)
		p.touch()
		if p.prepare() {
			p.runContainers()
		}
		unwatch()
		p.tearDown()
		p.advance(stageEnded)
	}
	<-p.life.Done()
	if errors.Is(context.Cause(p.life), errDeleted) {
		p.delete()
	}
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// prepare makes network and volumes, trying again until it succeeds or the pod ends (false).
func (p *pod) prepare() bool {
	for _, said := range passedOver(p.spec) {
		p.event(corev1.EventTypeWarning, "NotSupported", said)
	}
	for try := 1; ; try++ {
		err := p.prepareOnce()
		if p.life.Err() != nil {
			return false
		}
		if err == nil {
			p.change(func() { p.message = "" })
			p.advance(stageInitializing)
			return true
		}
		err = explainDisk(err, p.dir)
		p.change(func() { p.message = err.Error() })
		p.event(corev1.EventTypeWarning, "FailedMount", err.Error())
		if !wait(p.life, p.agent.clock, min(time.Duration(try)*prepareRetry, refreshEvery)) {
			return false
		}
	}
}

func (p *pod) prepareOnce() error {
	if p.spec.Spec.HostNetwork {
		return errors.New("the lab's node has no hostNetwork: remove it from the pod")
	}
	if err := p.connect(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return p.volumes.sync(p.life, p.spec)
}

// connect gives the pod its network, once.
func (p *pod) connect() error {
	if p.address().IsValid() {
		return nil
	}
	ip, err := p.agent.addresses.take()
	if err != nil {
		return err
	}
	cidr := p.agent.PodCIDR
	err = network.AddPod(network.Pod{
		NetNS: p.netns, Bridge: p.agent.PodBridge, Address: ip, Gateway: cidr.Masked().Addr().Next(),
	})
	if err == nil {
		err = p.setSysctls()
	}
	if err != nil {
		p.agent.addresses.release(ip)
		return errors.Join(err, network.DeletePod(p.netns))
	}
	p.change(func() { p.ip = ip })
	return nil
}

// volumePath returns where a volume lies on the host.
func (p *pod) volumePath(name string) string {
	for _, v := range p.spec.Spec.Volumes {
		if v.Name == name && v.HostPath != nil {
			return v.HostPath.Path
		}
	}
	return p.volumes.path(name)
}

// setSysctls writes the pod's own network settings.
func (p *pod) setSysctls() error {
	sc := p.spec.Spec.SecurityContext
	if sc == nil || len(sc.Sysctls) == 0 {
		return nil
	}
	return network.Do(p.netns, func() error {
		for _, s := range sc.Sysctls {
			if !strings.HasPrefix(s.Name, "net.") {
				return fmt.Errorf("sysctl %s: the lab's node sets net.* only", s.Name)
			}
			file := "/proc/sys/" + strings.ReplaceAll(s.Name, ".", "/")
			if err := os.WriteFile(file, []byte(s.Value), 0o644); err != nil {
				return fmt.Errorf("sysctl %s: %w", s.Name, err)
			}
		}
		return nil
	})
}

func (p *pod) address() netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ip
}

// runContainers runs all containers until they have ended for good. Sidecars end after the others.
func (p *pod) runContainers() {
	sidecars, endSidecars := context.WithCancelCause(context.Background())
	var beside sync.WaitGroup
	refresh, endRefresh := context.WithCancel(p.life)
	beside.Go(func() { p.refresh(refresh) })
	if p.initialize(sidecars, &beside) {
		p.advance(stageRunning)
		var mains sync.WaitGroup
		for _, c := range p.containers {
			if !c.init {
				mains.Go(func() { c.run(p.life) })
			}
		}
		mains.Wait()
	}
	why := context.Cause(p.life)
	if why == nil {
		why = errors.New("the other containers have ended")
	}
	endSidecars(why)
	endRefresh()
	beside.Wait()
}

// initialize runs the init containers in their order; false when the main ones must not run.
func (p *pod) initialize(sidecars context.Context, beside *sync.WaitGroup) bool {
	for _, c := range p.containers {
		switch {
		case !c.init:
		case c.restartable:
			beside.Go(func() { c.run(sidecars) })
			select {
			case <-c.onStarted:
			case <-p.life.Done():
			}
		default:
			c.run(p.life)
			if c.state.Terminated == nil || c.state.Terminated.ExitCode != 0 {
				return false
			}
		}
		if p.life.Err() != nil {
			return false
		}
	}
	return true
}

// refresh keeps volumes up to date: tokens are renewed, and changed objects reach the containers.
func (p *pod) refresh(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.agent.clock.After(refreshEvery):
		case <-p.relabelled:
		}
		p.mu.Lock()
		latest := p.latest
		p.mu.Unlock()
		if err := p.volumes.syncFrom(ctx, latest, p.agent.recent); err != nil && ctx.Err() == nil {
			p.agent.log.Warn("volumes are not up to date", "pod", p.name(), "error", err)
		}
	}
}

// grace returns how long processes may take to end, and what cuts that short. A pod has one period for all of its
// containers: sidecars, which end last, have what the others left of it.
func (p *pod) grace() (time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	grace := 30 * time.Second
	if s := first(p.latest.DeletionGracePeriodSeconds, p.spec.Spec.TerminationGracePeriodSeconds); s != nil {
		grace = time.Duration(*s) * time.Second
	}
	if errors.Is(context.Cause(p.life), errShutdown) {
		grace = min(grace, shutdownGrace)
	}
	if !p.asked.IsZero() {
		grace -= time.Since(p.asked)
	}
	return grace, p.hurry
}

// tearDown removes the pod's network and files. Its log stays, for whoever asks why it ended.
func (p *pod) tearDown() {
	if err := removePod(p.netns, p.dir); err != nil {
		p.agent.log.Warn("a pod was not removed whole", "pod", p.name(), "error", err)
	}
	if ip := p.address(); ip.IsValid() {
		p.agent.addresses.release(ip)
	}
}

// delete has the API server forget the pod; its finalizers, if any, hold it as long as they want.
func (p *pod) delete() {
	zero, uid := int64(0), p.spec.UID
	options := metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}}
	for {
		ctx, cancel := context.WithTimeout(p.known, requestTimeout)
		err := p.agent.client.CoreV1().Pods(p.spec.Namespace).Delete(ctx, p.spec.Name, options)
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || p.known.Err() != nil {
			return
		}
		p.agent.log.Warn("deleting a pod failed", "pod", p.name(), "error", err)
		if !wait(p.known, p.agent.clock, time.Second) {
			return
		}
	}
}

func (p *pod) name() string { return p.spec.Namespace + "/" + p.spec.Name }

// environment resolves the pod's variables and downward API as it is now.
func (p *pod) environment() *environment {
	p.mu.Lock()
	defer p.mu.Unlock()
	latest := p.latest.DeepCopy()
	latest.Spec.NodeName = p.agent.NodeName
	return &environment{
		pod: latest, podIP: p.ip.String(), nodeIP: p.agent.NodeIP, objects: p.agent.objects,
		allocatable: maps.Clone(p.agent.allocatable), base: baseEnv(p.agent.Config, p.hostname()),
	}
}
