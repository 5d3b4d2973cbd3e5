// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

// Short are the faults of `make test`, All those of `make chaos`.
func Short() []Fault {
	return []Fault{scaledToZero(), cutOff()}
}

// All faults, in the order of the table.
func All() []Fault {
	return slices.Concat(podFaults(), answerFaults(), gatewayFaults(), linkFaults(), controlPlaneFaults(), hubFaults(), drainFaults())
}

func podFaults() []Fault {
	return []Fault{
		scaledToZero(),
		{Name: "all pods of gke crash", Do: kill("gke", "sample/helloworld"), Undo: heal, Lasts: 6 * time.Second},
		{Name: "one of two pods of gke crashes", Do: killOnePod, Undo: heal, Lasts: 6 * time.Second},
		nobodyLeft(),
		flapping(2 * time.Second), flapping(5 * time.Second), flapping(10 * time.Second),
	}
}

func answerFaults() []Fault {
	made := func(name, word string, pods int, answers Answers) Fault {
		return Fault{Name: name, Still: true, Lasts: 8 * time.Second, Answers: &answers,
			Do: func(_ context.Context, t testing.TB) error {
				labtest.TellPods(t, "gke", "helloworld", word, pods)
				return nil
			},
			Undo: func(_ context.Context, t testing.TB) error {
				labtest.TellPods(t, "gke", "helloworld", "well", 2)
				return nil
			},
		}
	}
	return []Fault{
		made("one of two pods of gke answers 500", "failing", 1, Answers{By: "gke", Status: http.StatusInternalServerError, Share: 0.1}),
		made("all pods of gke answer 500", "failing", 2, Answers{By: "gke", Status: http.StatusInternalServerError, Share: 0.2}),
		made("all pods of gke answer after 2 s", "slow", 2, Answers{By: "gke", After: 2 * time.Second, Share: 0.2}),
	}
}

func gatewayFaults() []Fault {
	return []Fault{
		{Name: "east-west gateway of gke crashes", Do: kill("gke", "isthmus-system/isthmus-east-west"), Undo: heal, Lasts: 6 * time.Second},
		{Name: "public gateway of gke crashes", Dead: "gke", Do: kill("gke", "sample/public"), Undo: heal, Lasts: 6 * time.Second},
	}
}

func linkFaults() []Fault {
	cut := func(name string, lasts time.Duration, cluster string, others ...string) Fault {
		return Fault{Name: name, Still: true, Lasts: lasts, Undo: heal,
			Do: func(ctx context.Context, _ testing.TB) error { return labtest.Lab.Partition(ctx, cluster, others...) }}
	}
	return []Fault{
		cutOff(),
		cut("gke cut off from eks only", 10*time.Second, "gke", "eks"),
		cut("gke cut off from the hub only", 15*time.Second, "gke", "hub"),
		cut("hub cut off from everything", 15*time.Second, "hub"),
	}
}

func controlPlaneFaults() []Fault {
	still := func(name string, lasts time.Duration, do step) Fault {
		return Fault{Name: name, Still: true, Lasts: lasts, Do: do, Undo: heal}
	}
	return []Fault{
		still("API server of gke killed", 10*time.Second, kill("gke", state.APIServer)),
		still("API servers of both members killed", 10*time.Second, both(kill("eks", state.APIServer), kill("gke", state.APIServer))),
		longWithoutAPIServer(),
		still("etcd of gke stalled", 10*time.Second, stop("gke", state.Etcd)),
		still("istiod of gke killed", 6*time.Second, kill("gke", state.Istiod)),
	}
}

func hubFaults() []Fault {
	clock := func(name string, offset time.Duration) Fault {
		return Fault{Name: name, Still: true, Undo: heal, Lasts: 6 * time.Second, Do: func(ctx context.Context, _ testing.TB) error {
			return labtest.Lab.MoveClock(ctx, "hub", "hub", offset)
		}}
	}
	return []Fault{
		{Name: "hub killed", Still: true, Do: kill("hub", "hub"), Undo: heal, Lasts: 6 * time.Second},
		hubKilledInAShift(),
		clock("clock of the hub 90 s ahead", 90*time.Second),
		clock("clock of the hub 90 s behind", -90*time.Second),
		{Name: "pods of gke go while the hub is frozen", Lasts: 6 * time.Second,
			Do: func(ctx context.Context, t testing.TB) error {
				err := stop("hub", "hub")(ctx, t)
				labtest.Scale(t, "gke", "helloworld", 0)
				return err
			},
			Undo: func(ctx context.Context, t testing.TB) error {
				labtest.Scale(t, "gke", "helloworld", 2)
				return heal(ctx, t)
			}},
	}
}

func scaledToZero() Fault {
	return Fault{Name: "gke scaled to no pods", Lost: "gke", Weights: labtest.Everywhere(100, 0), Lasts: 4 * time.Second,
		Do: scale(0, "gke"), Undo: scale(2, "gke")}
}

func cutOff() Fault {
	return Fault{Name: "gke cut off from everything", Still: true, Lost: "gke", Dead: "gke", Lasts: 10 * time.Second, Undo: heal,
		Do: func(ctx context.Context, _ testing.TB) error { return labtest.Lab.Partition(ctx, "gke") }}
}

// nobodyLeft takes the pods of all members away at once. Each route is then written once at most for whoever goes first, not
// again while nobody is left, once for whoever is back first, and twice for the step of each other: with one pod, with two,
// and its whole part.
func nobodyLeft() Fault {
	return Fault{Name: "all pods of both members gone", Nobody: true, Lasts: 6 * time.Second,
		Bound: func(time.Duration) int { return 6 * len(labtest.Members) },
		Do:    scale(0, labtest.Members...), Undo: scale(2, labtest.Members...)}
}

// longWithoutAPIServer is the first fault for a cluster whose API server has been away for so long that whoever watches it
// has come to look for it once in half a minute. The mesh is such a one, and sends to pods that are gone until it looks.
func longWithoutAPIServer() Fault {
	f := scaledToZero()
	f.Name, f.Loses = "gke scaled to no pods, its API server just back", true
	f.Prepare = func(ctx context.Context, t testing.TB) error {
		if err := kill("gke", state.APIServer)(ctx, t); err != nil {
			return err
		}
		pause(ctx, t, 75*time.Second)
		return heal(ctx, t)
	}
	f.Undo = both(heal, f.Undo)
	return f
}

// hubKilledInAShift kills the hub when one member has the new weights and the other cannot be reached. The hub that is
// started after it has to finish what was begun.
func hubKilledInAShift() Fault {
	return Fault{Name: "hub killed in the middle of a shift", Lost: "gke", Weights: labtest.Everywhere(100, 0), Lasts: 4 * time.Second,
		Do: func(ctx context.Context, t testing.TB) error {
			if err := labtest.Lab.Partition(ctx, "hub", "eks"); err != nil {
				return err
			}
			labtest.Scale(t, "gke", "helloworld", 0)
			labtest.ExpectWeightsIn(t, "gke", "helloworld", labtest.Everywhere(100, 0)["gke"])
			return errors.Join(kill("hub", "hub")(ctx, t), heal(ctx, t))
		},
		Undo: func(ctx context.Context, t testing.TB) error {
			return errors.Join(heal(ctx, t), scale(2, "gke")(ctx, t))
		}}
}

// killOnePod kills the first by name.
func killOnePod(ctx context.Context, t testing.TB) error {
	running, err := labtest.Lab.State()
	if err != nil {
		return err
	}
	var names []string
	for _, p := range running.Find("gke", state.Pod) {
		if strings.HasPrefix(p.Name, labtest.Sample+"/helloworld") {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return errors.New("no pod of helloworld runs in gke")
	}
	return kill("gke", slices.Min(names))(ctx, t)
}

func kill(cluster, component string) step {
	return func(context.Context, testing.TB) error { return labtest.Lab.Kill(cluster, component) }
}

func stop(cluster, component string) step {
	return func(context.Context, testing.TB) error { return labtest.Lab.Stop(cluster, component) }
}

// both does one after the other.
func both(one, other step) step {
	return func(ctx context.Context, t testing.TB) error { return errors.Join(one(ctx, t), other(ctx, t)) }
}

// scale gives helloworld in each of these members so many pods, at the same time.
func scale(replicas int32, members ...string) step {
	return func(_ context.Context, t testing.TB) error {
		for _, member := range members {
			labtest.SetReplicas(t, member, "helloworld", replicas)
		}
		for _, member := range members {
			labtest.Scale(t, member, "helloworld", replicas)
		}
		return nil
	}
}

func heal(ctx context.Context, _ testing.TB) error { return labtest.Lab.Heal(ctx) }
