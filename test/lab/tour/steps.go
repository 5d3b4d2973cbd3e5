// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"fmt"
	"strings"
)

// Step is one subject of the tour. When its last scene is over, all is as before its first.
type Step struct {
	Name, Title string
	scenes      []scene
}

// scene is one screen: something is done, and what becomes of it is watched.
type scene struct {
	title  string
	do     command
	expect string
	// undo puts back what do changes. It runs when the tour ends before the step does.
	undo command
	// restores says that do itself puts back what the scene before changed.
	restores bool
	// decided says whether the hub has decided; nil where it has nothing to decide.
	decided func(Observation) bool
	// seen says whether what is awaited has come.
	awaits string
	seen   func(Figures, Observation) bool
}

// command is a program and its arguments, as they are shown and as they are run.
type command []string

// String is the command for a shell.
func (c command) String() string {
	words := make([]string, 0, len(c))
	for _, word := range c {
		if word == "" || strings.ContainsAny(word, " \t\n'\"\\$`{}[]()<>|&;*?!#~") {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// before is how the tour finds the lab, and leaves it.
type before struct {
	eks, gke         int32 // weights of the policy
	replicas         int32 // of helloworld in eks
	controllers      int32 // replicas of the hub's controller
	rate             int   // requests a second
	namespace, route string
	lab              string // the lab's folder, where it is not the default one
}

// share of eks by the policy, 0 to 1.
func (b before) share() float64 { return float64(b.eks) / float64(b.eks+b.gke) }

// Steps are the whole tour.
func steps(b before) []Step {
	return []Step{
		{Name: "split", Title: "One route, two clusters", scenes: splitScenes(b)},
		{Name: "policy", Title: "Change the policy", scenes: policyScenes(b)},
		{Name: "failover", Title: "Failover and failback", scenes: failoverScenes(b)},
		{Name: "crash", Title: "A crash that the proxies bridge", scenes: crashScenes(b)},
		{Name: "partition", Title: "A cluster vanishes from the network", scenes: partitionScenes(b)},
		{Name: "hub", Title: "The hub is away", scenes: hubScenes(b)},
	}
}

func kubectl(context, namespace string, args ...string) command {
	return append(command{"kubectl", "--context", context, "-n", namespace}, args...)
}

func (b before) fault(args ...string) command {
	c := append(command{"isthmus-lab", "fault"}, args...)
	if b.lab != "" {
		c = append(c, "--dir", b.lab)
	}
	return c
}

// planned says that the policy's split is planned everywhere.
func (b before) planned(o Observation) bool { return o.Everywhere("eks", 100*b.share()) }

// asIntended says that the split is the policy's again, in the plans and in the answers.
func (b before) asIntended(f Figures, o Observation) bool {
	return b.planned(o) && near(f.Cluster("eks").Share, b.share()) && f.Failed.Rate == 0
}

// near allows for chance in two seconds of load.
func near(have, want float64) bool { return have > want-0.12 && have < want+0.12 }

func splitScenes(b before) []scene {
	return []scene{{
		title: fmt.Sprintf("The policy says %d to %d", b.eks, b.gke),
		do:    kubectl("hub", b.namespace, "get", "routeplans"),
		expect: fmt.Sprintf("%d requests a second for one host enter at the gateway of eks. The hub holds one Gateway, one HTTPRoute and one "+
			"policy; each member got a plain HTTPRoute with weights, which its own Istio programs. %.0f of 100 requests are served in eks, the rest "+
			"cross to gke with mutual TLS.", b.rate, 100*b.share()),
		awaits: "answers as the policy says",
		seen:   b.asIntended,
	}}
}

func (b before) patchPolicy(eks, gke int32) command {
	patch := fmt.Sprintf(`{"spec":{"defaults":{"distribution":{"weights":[{"cluster":"eks","weight":%d},{"cluster":"gke","weight":%d}]}}}}`, eks, gke)
	return kubectl("hub", b.namespace, "patch", "trafficdistributionpolicy", b.route, "--type", "merge", "-p", patch)
}

func policyScenes(b before) []scene {
	back := b.patchPolicy(b.eks, b.gke)
	return []scene{{
		title:   "Half and half",
		do:      b.patchPolicy(50, 50),
		undo:    back,
		expect:  "One write in the hub. The weights of both members follow at once and no request fails: a change of weights only decides where the next request goes.",
		decided: func(o Observation) bool { return o.Everywhere("eks", 50) },
		awaits:  "half of the answers by each",
		seen:    func(f Figures, _ Observation) bool { return near(f.Cluster("eks").Share, 0.5) },
	}, {
		title: fmt.Sprintf("Back to %d to %d", b.eks, b.gke), do: back, restores: true,
		expect:  "The same way back.",
		decided: b.planned,
		awaits:  "answers as the policy says, none failed", seen: b.asIntended,
	}}
}

func failoverScenes(b before) []scene {
	scale := func(n int32) command {
		return kubectl("eks", b.namespace, "scale", "deployment", "helloworld", "--replicas", fmt.Sprint(n))
	}
	return []scene{{
		title: "All pods of eks go",
		do:    scale(0), undo: scale(b.replicas),
		expect: "The last ready pod goes and the hub gives all weight to gke, in both members. Until the new weight is in the proxy, the proxy by " +
			"itself sends on to gke what finds no pod in eks. What fails is counted below, as it is.",
		decided: func(o Observation) bool { return o.Everywhere("eks", 0) },
		awaits:  "all answers by gke, none failed",
		seen:    func(f Figures, _ Observation) bool { return f.Cluster("eks").Rate == 0 && f.Failed.Rate == 0 },
	}, {
		title: "The pods return",
		do:    scale(b.replicas), restores: true,
		expect: "Nothing leaves late, and nothing returns in a hurry: eks has to be well for two seconds before it has half of its share, and two seconds " +
			"later all of it. That is what the example's policy says; by default it is fifteen seconds and three steps. One that flaps waits twice as long each time.",
		decided: b.planned,
		awaits:  "answers as the policy says, none failed", seen: b.asIntended,
	}}
}

func crashScenes(b before) []scene {
	return []scene{{
		title: "The gateways of gke crash",
		do:    b.fault("kill", "gke", "gateway"),
		expect: "Every Envoy of gke is killed. Pods and API server of gke are well, so the weights stay. The proxy of eks finds the door shut and serves " +
			"gke's share in eks until the gateways are back, by itself, without the hub. Only requests that were under way can fail.",
		awaits: "gke gone, and back with its share",
		seen: func(f Figures, _ Observation) bool {
			return dipped(f.Cluster("gke"), f.Since.Slots) && near(f.Cluster("gke").Share, 1-b.share())
		},
	}}
}

// dipped says that a cluster answered next to nothing for a while of the last so many slots, which are the scene's.
func dipped(cluster Row, slots int) bool {
	for _, rate := range cluster.Story[len(cluster.Story)-min(len(cluster.Story), slots):] {
		if rate <= 2 {
			return true
		}
	}
	return false
}

func partitionScenes(b before) []scene {
	return []scene{{
		title: "gke is cut off",
		do:    b.fault("partition", "gke"), undo: b.fault("heal", "gke"),
		expect: "Nothing refuses: packets just vanish. Pings between the gateways notice within two seconds, and the proxy of eks then serves gke's share in " +
			"eks, at once but for a second's wait each time that it tries gke again. The weights stay: losing an API server is not losing the " +
			"traffic, and the example has no probe. examples/health has one.",
		awaits: "the hub knows that it lost gke",
		seen: func(_ Figures, o Observation) bool {
			return len(o.Members) > 0 && !o.Member("gke").Connected
		},
	}, {
		title: "gke is joined again",
		do:    b.fault("heal", "gke"), restores: true,
		expect: "The hub is connected again within seconds, and gke has its share back as soon as the proxy's next try succeeds.",
		awaits: "gke connected, and back with its share",
		seen: func(f Figures, o Observation) bool {
			return o.Member("gke").Connected && b.asIntended(f, o)
		},
	}}
}

func hubScenes(b before) []scene {
	scale := func(n int32) command {
		return kubectl("hub", "isthmus-system", "scale", "deployment", "isthmus-hub", "--replicas", fmt.Sprint(n))
	}
	return []scene{{
		title: "The controller stops",
		do:    scale(0), undo: scale(b.controllers),
		expect: "No request passes through the hub and nothing in a member depends on it: the figures do not change. While it is away nobody fails over " +
			"between clusters; the proxies still do.",
		awaits: "no controller, no change",
		seen:   func(f Figures, o Observation) bool { return !o.HubRuns && b.asIntended(f, o) },
	}, {
		title: "The controller returns",
		do:    scale(b.controllers), restores: true,
		expect: "It reads the members, finds all as it should be, and writes nothing.",
		awaits: "a controller, no change",
		seen:   func(f Figures, o Observation) bool { return o.HubRuns && b.asIntended(f, o) },
	}}
}
