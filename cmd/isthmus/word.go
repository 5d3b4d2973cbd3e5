// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// word is a verb that makes a TrafficOverride, and the one that ends it.
type word struct {
	kind v1alpha1.OverrideType
	// say makes it, end deletes it; empty where it is only left to expire.
	say, end string
	// takes is what follows the verb; empty for nothing.
	takes string
	// short and long explain say; endShort explains end.
	short, long, endShort string
	// did is what is said of what it is about, such as "eks is being drained".
	did string
	// reason and lasts are what holds where a person does not say.
	reason string
	lasts  time.Duration
	// reads are the lists that tell whether what is named is there.
	reads []string
}

const (
	takesCluster = "CLUSTER[/NAMESPACE/SERVICE]"
	takesRoute   = "NAMESPACE/ROUTE"
)

var words = []word{
	{kind: v1alpha1.OverrideDrain, say: "drain", end: "undrain", takes: takesCluster, did: "is being drained",
		reads: []string{"MemberClusters", "ServiceImports", "TrafficOverrides"},
		short: "Take a cluster, or a service in it, out of every split", endShort: "End a drain",
		long: `Take a cluster, or a service in it, out of every split while another cluster can serve.

New requests go elsewhere; those that it has are left to end. A drain of a whole cluster also takes its gateways out of the addresses of the
hub's Gateways. What no other cluster can serve stays, unless it is forced. --dry-run tells all of that beforehand.`},
	{kind: v1alpha1.OverrideFreeze, say: "freeze", end: "unfreeze", did: "is frozen", reads: []string{"TrafficOverrides"},
		short: "Keep every weight and address as it is", endShort: "End the freeze",
		long: `Keep the weights of every route, and the addresses of every Gateway, as they were last decided.

While it holds, nothing leaves a cluster that dies, but what the proxies move by themselves. Give it an end by --for.`},
	{kind: v1alpha1.OverrideHold, say: "hold", end: "release", takes: takesRoute, did: "is held", reads: []string{"HTTPRoutes", "TrafficOverrides"},
		short: "Keep the weights of a route as they are", endShort: "End the hold of a route",
		long: `Keep the weights of a route as they were last decided, whatever happens to health, policies and the route's own weights.

While it holds, nothing of this route leaves a cluster that dies, but what the proxies move by themselves. Give it an end by --for.`},
	{kind: v1alpha1.OverrideFailback, say: "failback", takes: takesCluster, did: "may return", reason: "it may return", lasts: time.Hour,
		reads: []string{"MemberClusters", "ServiceImports", "TrafficOverrides"},
		short: "Let a cluster, or a service in it, return without its hold",
		long: `Let a cluster, or a service in it, return that has left, without its hold, also where its policy leaves that to a person.

It returns step by step. It is a word for once: what leaves after it was said waits again, and then it may be said again.`},
}

// wordOf is the word of a type, if this command has one.
func wordOf(kind v1alpha1.OverrideType) (word, bool) {
	i := slices.IndexFunc(words, func(w word) bool { return w.kind == kind })
	if i < 0 {
		return word{}, false
	}
	return words[i], true
}

// spelled is the spec of what is named, whether it is there or not.
func (w word) spelled(a *access, name string) (v1alpha1.TrafficOverrideSpec, error) {
	spec := v1alpha1.TrafficOverrideSpec{Type: w.kind}
	switch w.takes {
	case takesCluster:
		t, err := spelled(name)
		spec.Cluster, spec.Imports = t.cluster, t.imports()
		return spec, err
	case takesRoute:
		route, err := spelledRoute(a, name)
		spec.Routes = []v1alpha1.ObjectReference{{Namespace: route.Namespace, Name: route.Name}}
		return spec, err
	}
	return spec, nil
}

// there says whether what is named exists: a name that was mistyped would be obeyed without any effect.
func (w word) there(name string, spec v1alpha1.TrafficOverrideSpec, records federation.Records) error {
	switch w.takes {
	case takesCluster:
		_, err := parseTarget(name, records)
		return err
	case takesRoute:
		for _, route := range records.Routes {
			if route.Namespace == spec.Routes[0].Namespace && route.Name == spec.Routes[0].Name {
				return nil
			}
		}
		return noRoute(spec.Routes[0], records)
	}
	return nil
}

func noRoute(ref v1alpha1.ObjectReference, records federation.Records) error {
	var names []string
	for _, route := range records.Routes {
		if route.Namespace == ref.Namespace {
			names = append(names, route.Name)
		}
	}
	return fmt.Errorf("there is no HTTPRoute %s/%s in the hub: namespace %s has %s", ref.Namespace, ref.Name, ref.Namespace, orNone(names))
}

// spelledRoute reads NAMESPACE/NAME, or NAME where the namespace is given by its flag.
func spelledRoute(a *access, text string) (federation.ServiceKey, error) {
	return spelledName(a, text, takesRoute)
}

// spelledName reads NAMESPACE/NAME, or NAME where the namespace is given by its flag. takes says what is meant.
func spelledName(a *access, text, takes string) (federation.ServiceKey, error) {
	namespace, name, whole := strings.Cut(text, "/")
	if !whole {
		namespace, name = a.namespace, text
	}
	switch {
	case namespace == "" || name == "" || strings.Contains(name, "/"):
		return federation.ServiceKey{}, usageError("%q is not %s", text, takes)
	case whole && a.namespace != "" && a.namespace != namespace:
		return federation.ServiceKey{}, usageError("%s names its namespace, and --namespace %s another: give one of the two", text, a.namespace)
	}
	return federation.ServiceKey{Namespace: namespace, Name: name}, nil
}

// overrideName follows from what is said, so that the same cannot be said twice: drain-eks, drain-eks.shop.cart,
// hold-shop.cart, freeze. Neither clusters nor namespaces have dots in their names.
func overrideName(spec v1alpha1.TrafficOverrideSpec) string {
	name := strings.ToLower(string(spec.Type))
	parts := []string{spec.Cluster}
	for _, ref := range slices.Concat(spec.Imports, spec.Routes) {
		parts = append(parts, ref.Namespace, ref.Name)
	}
	if what := strings.TrimPrefix(strings.Join(parts, "."), "."); what != "" {
		name += "-" + what
	}
	const limit = 253 // of an object's name
	if len(name) > limit {
		sum := sha256.Sum256([]byte(name))
		hash := hex.EncodeToString(sum[:8])
		name = strings.TrimRight(name[:limit-len(hash)-1], "-.") + "-" + hash
	}
	return name
}

// about is what an override is about, in words.
func about(spec v1alpha1.TrafficOverrideSpec) string {
	switch spec.Type {
	case v1alpha1.OverrideDrain, v1alpha1.OverrideFailback:
		if len(spec.Imports) == 0 {
			return spec.Cluster
		}
		return listed(spec.Imports) + " in " + spec.Cluster
	case v1alpha1.OverrideHold, v1alpha1.OverridePin:
		return "HTTPRoute " + listed(spec.Routes)
	case v1alpha1.OverrideFreeze:
	}
	return "everything"
}

func listed(refs []v1alpha1.ObjectReference) string {
	var out []string
	for _, ref := range refs {
		out = append(out, ref.Namespace+"/"+ref.Name)
	}
	return strings.Join(out, ", ")
}

// sameAbout tells whether two overrides say the same of the same.
func sameAbout(a, b v1alpha1.TrafficOverrideSpec) bool {
	return a.Type == b.Type && a.Cluster == b.Cluster && slices.Equal(a.Imports, b.Imports) && slices.Equal(a.Routes, b.Routes)
}

// covers tells whether an override is as strong as another of the same, and holds as long.
func covers(have, want v1alpha1.TrafficOverrideSpec) bool {
	long := have.Expires == nil || want.Expires != nil && !have.Expires.Before(want.Expires)
	return long && (have.Force || !want.Force) && (want.GracePeriod == nil || have.DrainGrace() == want.DrainGrace())
}

// signed is by whom and why.
func signed(spec v1alpha1.TrafficOverrideSpec) string {
	return "(" + spec.Author + ": " + spec.Reason + ")"
}

// until is when it ends.
func until(spec v1alpha1.TrafficOverrideSpec, now time.Time) string {
	if spec.Expires == nil {
		return "until it is ended"
	}
	return "until " + clock(*spec.Expires) + " (" + expiry(spec.Expires, now) + ")"
}

func expiry(at *metav1.Time, now time.Time) string {
	switch {
	case at == nil:
		return "never"
	case now.Before(at.Time):
		return "in " + duration.HumanDuration(at.Sub(now))
	}
	return ago(*at, now)
}

// ago is how long ago something was; nothing where that is not known.
func ago(at metav1.Time, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return duration.HumanDuration(max(0, now.Sub(at.Time))) + " ago"
}

// clock is a time as people of several places can compare it.
func clock(at metav1.Time) string { return at.UTC().Format("2006-01-02 15:04:05Z") }

// how to end an override: by this command if it is one of its own.
func howToEnd(o *v1alpha1.TrafficOverride) string {
	if w, known := wordOf(o.Spec.Type); known && w.end != "" && o.Name == overrideName(o.Spec) {
		return strings.TrimSpace("isthmus " + w.end + " " + argument(o.Spec))
	}
	return "kubectl delete trafficoverride " + o.Name
}

// argument is what is written after the verb.
func argument(spec v1alpha1.TrafficOverrideSpec) string {
	return strings.Trim(spec.Cluster+"/"+listed(slices.Concat(spec.Imports, spec.Routes)), "/")
}
