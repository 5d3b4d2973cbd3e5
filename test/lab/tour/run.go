// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/state"
)

// What the example is called, and where it enters.
const (
	exampleNamespace = "sample"
	exampleRoute     = "helloworld"
	exampleHost      = "helloworld.example.com"
	examplePath      = "/hello"
	entry            = "eks"
)

// clusters of the example: the policy and the tour name them.
var clusters = []string{"eks", "gke"}

var controllerKey = client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "isthmus-hub"}

// DefaultPace is how long the unattended tour shows a scene.
const DefaultPace = 12 * time.Second

// Options of a tour.
type Options struct {
	Lab *lab.Lab
	// In and Out are the terminal, or whatever there is instead.
	In, Out *os.File
	// Steps by their names; none are all.
	Steps []string
	// Auto goes on by itself, after Pace (default DefaultPace), and when what is expected has come.
	Auto bool
	Pace time.Duration
	// Plain prints lines instead of a picture.
	Plain bool
	// Rate of the load in requests a second; default 100.
	Rate int
}

// Describe lists the steps, a line each.
func Describe(out io.Writer) {
	for _, s := range steps(before{eks: 80, gke: 20}) {
		fmt.Fprintf(out, "%-10s %s\n", s.Name, s.Title)
	}
}

// Run shows the tour. However it ends, what it changed in the lab is put back and its load has ended. That it was left
// early is no error.
func Run(ctx context.Context, o Options) error {
	if o.Rate == 0 {
		o.Rate = 100
	}
	if o.Pace == 0 {
		o.Pace = DefaultPace
	}
	w, url, err := enter(o.Lab)
	if err != nil {
		return err
	}
	found, err := w.find(ctx)
	if err != nil {
		return err
	}
	found.rate = o.Rate
	chosen, err := choose(steps(found), o.Steps)
	if err != nil {
		return err
	}
	if w.seen, err = w.ask(ctx); err != nil {
		return fmt.Errorf("the hub does not answer, see `isthmus-lab status`: %w", err)
	}
	background, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { newLoad(url, exampleHost, o.Rate, w.recorder).run(background) })
	wg.Go(func() { w.observe(background) })
	t := &tour{world: w, pace: o.Pace, auto: o.Auto, out: o.Out, rate: o.Rate}
	if err := t.takeStage(o); err != nil {
		return err
	}
	defer t.stage.Leave()
	return t.walk(ctx, chosen)
}

// takeStage decides between a picture and lines. Where nobody can press a key the tour goes on by itself.
func (t *tour) takeStage(o Options) (err error) {
	typed, drawn := term.IsTerminal(int(o.In.Fd())), term.IsTerminal(int(o.Out.Fd())) && os.Getenv("TERM") != "dumb"
	if typed && drawn && !o.Plain {
		// https://no-color.org
		if t.stage, err = openScreen(o.In, o.Out, os.Getenv("NO_COLOR") == ""); err != nil {
			return err
		}
	} else {
		t.stage = &paper{out: o.Out, every: linesOfPaper}
	}
	if !typed {
		t.auto = true
		return nil
	}
	keys := make(chan key)
	go readKeys(o.In, keys) // ends with the program: a read of a terminal cannot be called off
	t.keys = keys
	return nil
}

// choose returns the steps of those names, in the order of the tour.
func choose(all []Step, names []string) ([]Step, error) {
	if len(names) == 0 {
		return all, nil
	}
	known := make([]string, 0, len(all))
	for _, s := range all {
		known = append(known, s.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("the tour has no step %q, only %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s Step) bool { return !slices.Contains(names, s.Name) }), nil
}

// enter looks whether the lab is one that the tour can be shown in.
func enter(l *lab.Lab) (w *labWorld, url string, err error) {
	running, err := l.State()
	if err != nil {
		return nil, "", err
	}
	if err := suits(running); err != nil {
		return nil, "", err
	}
	if url, err = l.GatewayURL(entry); err != nil {
		return nil, "", err
	}
	config, err := l.RESTConfig("hub")
	if err != nil {
		return nil, "", err
	}
	hub, err := newClient(config)
	if err != nil {
		return nil, "", fmt.Errorf("the hub does not answer, see `isthmus-lab status`: %w", err)
	}
	w = &labWorld{
		lab: l, root: running.Root, hub: hub, at: client.ObjectKey{Namespace: exampleNamespace, Name: exampleRoute},
		recorder: newRecorder(clusters, time.Now()),
	}
	config, err = l.RESTConfig(entry)
	if err != nil {
		return nil, "", err
	}
	w.entry, err = newClient(config)
	return w, url + examplePath, err
}

// suits says what the lab lacks.
func suits(running *state.Lab) error {
	const advice = "; the tour needs the lab that `isthmus-lab up` starts without options: `isthmus-lab down`, then `isthmus-lab tour`"
	for _, name := range append([]string{"hub"}, clusters...) {
		if _, err := running.Cluster(name); err != nil {
			return fmt.Errorf("%w%s", err, advice)
		}
	}
	switch {
	case !running.Mesh:
		return errors.New("the lab has no mesh" + advice)
	case len(running.Faults) > 0:
		return errors.New("faults are in force, which the tour would mix up with its own: `isthmus-lab fault heal` first")
	case !running.Ready:
		return errors.New("the lab did not come up completely: `isthmus-lab up` goes on with it")
	}
	return nil
}

// find returns how the lab is now, which is how the tour leaves it.
func (w *labWorld) find(ctx context.Context) (before, error) {
	b := before{namespace: w.at.Namespace, route: w.at.Name}
	var policy v1alpha1.TrafficDistributionPolicy
	var controller, app appsv1.Deployment
	err := errors.Join(
		w.hub.Get(ctx, w.at, &policy),
		w.hub.Get(ctx, controllerKey, &controller),
		w.entry.Get(ctx, w.at, &app),
	)
	if err != nil {
		return b, fmt.Errorf("the example is not as the tour needs it (apply examples/split, or `isthmus-lab down` and `isthmus-lab tour`): %w", err)
	}
	b.replicas, b.controllers = ptr.Deref(app.Spec.Replicas, 1), ptr.Deref(controller.Spec.Replicas, 1)
	if d := policy.Spec.Defaults; d != nil {
		for _, weight := range d.Distribution.Weights {
			switch weight.Cluster {
			case "eks":
				b.eks = weight.Weight
			case "gke":
				b.gke = weight.Weight
			}
		}
	}
	if b.eks == 0 || b.gke == 0 || b.replicas == 0 || b.controllers == 0 {
		return b, fmt.Errorf("the example was changed (weights eks %d, gke %d; %d pods in eks; %d controllers): the tour needs all of them above 0; "+
			"apply examples/split again, or `isthmus-lab down` and `isthmus-lab tour`", b.eks, b.gke, b.replicas, b.controllers)
	}
	if w.lab.Dir != filepath.Join(w.root, ".lab") {
		b.lab = w.lab.Dir
	}
	return b, nil
}
