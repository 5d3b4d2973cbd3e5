// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// planFlags are what is supposed, and how it is told.
type planFlags struct {
	lose, drain, files []string
	force              bool
	route              string
	output             *output
	maxSuspected       int
}

func planCommand(a *access) *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tell what would move if a cluster or a service were lost or drained, or a file applied",
		Long: `Tell what would move if a cluster or a service were lost or drained, or a file applied.

It changes nothing. It plans with the hub's own planner, from what the hub has recorded, twice: as it is and as it
would be, each once every hold has ended and every ramp is at its top. What is supposed is supposed together.

A cluster that is lost answers nobody any more; a service that is lost there has no ready endpoint left.`,
		Example: `  isthmus plan --lose eks                          # the whole of eks is gone
  isthmus plan --lose eks/shop/cart                # service cart of namespace shop has no endpoint in eks
  isthmus plan --drain eks                         # a TrafficOverride drains it
  isthmus plan -f policy.yaml -n shop              # a file were applied; tell of one namespace
  isthmus plan --drain eks --lose gke -o json      # both together, for a script`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("%q is no flag: say what is supposed by --lose, --drain or -f; see %s --help", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return runPlan(cmd, a, f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.lose, "lose", nil, "suppose that this is lost: CLUSTER or CLUSTER/NAMESPACE/SERVICE; may be repeated")
	flags.StringArrayVar(&f.drain, "drain", nil, "suppose that this is drained: CLUSTER or CLUSTER/NAMESPACE/SERVICE; may be repeated")
	flags.BoolVar(&f.force, "force", false, "suppose that the drains are forced: also where no other cluster can serve")
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "suppose that this file is applied to the hub; - is the standard input; may be repeated")
	flags.StringVar(&f.route, "route", "", "tell only of this HTTPRoute: NAMESPACE/NAME, or NAME with --namespace")
	f.output = addOutputFlag(cmd, asJSON, asYAML)
	flags.IntVar(&f.maxSuspected, "max-suspected", federation.DefaultMaxSuspected, "the hub's flag of that name")
	return cmd
}

func runPlan(cmd *cobra.Command, a *access, f planFlags) error {
	if err := f.check(a); err != nil {
		return err
	}
	objects, err := f.objects(cmd.InOrStdin())
	if err != nil {
		return err
	}
	return a.onRecords(cmd, mayRead, nil, func(ctx context.Context, h *hub, records federation.Records) error {
		told, err := f.suppose(ctx, h, records, objects)
		if err != nil {
			return err
		}
		namespace, route := a.namespace, f.route
		if ns, name, whole := strings.Cut(f.route, "/"); whole {
			namespace, route = ns, name
		}
		told.Consequences = told.Of(namespace, route)
		return told.tell(cmd.OutOrStdout(), f.output)
	})
}

// tell prints the answer, and ends with the exit code that goes with it.
func (a *answer) tell(out io.Writer, as *output) error {
	if err := as.print(out, a, a.table); err != nil {
		return err
	}
	if len(a.Concerns) > 0 {
		return exitError{errors.New(""), exitConcerns}
	}
	return nil
}

// check refuses flags that say nothing, or two things.
func (f planFlags) check(a *access) error {
	switch {
	case len(f.lose)+len(f.drain)+len(f.files) == 0:
		return usageError("say what is supposed: --lose CLUSTER, --drain CLUSTER or -f FILE")
	case f.maxSuspected < 1 || f.maxSuspected > 100:
		return usageError("--max-suspected is %d: give the hub's, from 1 to 100", f.maxSuspected)
	case f.force && len(f.drain) == 0:
		return usageError("--force belongs to --drain")
	case f.route != "" && a.namespace == "" && !strings.Contains(f.route, "/"):
		return usageError("--route is %q: give NAMESPACE/NAME, or the namespace by --namespace", f.route)
	case f.route != "" && a.namespace != "" && strings.Contains(f.route, "/"):
		return usageError("--route %s names its namespace, and so does --namespace: give one of the two", f.route)
	}
	return f.output.check()
}

func (f planFlags) objects(stdin io.Reader) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, name := range f.files {
		objects, err := readFile(name, stdin)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	if len(f.files) > 0 && len(out) == 0 {
		return nil, fmt.Errorf("there is no object in %s", strings.Join(f.files, ", "))
	}
	return out, nil
}

// suppose plans as it is and as it would be.
func (f planFlags) suppose(ctx context.Context, h *hub, records federation.Records, objects []*unstructured.Unstructured) (*answer, error) {
	changed, notes, err := h.applied(ctx, records, objects)
	if err != nil {
		return nil, err
	}
	guard := federation.Guard{MaxSuspected: f.maxSuspected}
	is, would := records.Situation(guard), changed.Situation(guard)
	told := &answer{Notes: slices.Concat(notes, records.Doubts(), underway(is))}
	for _, text := range f.lose {
		t, err := parseTarget(text, records)
		if err != nil {
			return nil, err
		}
		would = would.Without(federation.Loss{Cluster: t.cluster, Service: t.service})
		told.Supposed = append(told.Supposed, t.String()+" is lost")
	}
	for _, text := range f.drain {
		t, err := parseTarget(text, records)
		if err != nil {
			return nil, err
		}
		would = would.Overridden(t.drain(f.force))
		told.Supposed = append(told.Supposed, t.String()+" is drained")
	}
	for _, u := range objects {
		told.Supposed = append(told.Supposed, u.GetKind()+" "+strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/")+" is applied")
	}
	told.Consequences = federation.WhatIf(is, would)
	return told, nil
}

// underway says that the weights of this moment are not those that are shown as they are now.
func underway(is federation.Situation) []string {
	routes := is.Underway()
	if len(routes) == 0 {
		return nil
	}
	const named = 5
	more := ""
	if len(routes) > named {
		more = fmt.Sprintf(" and %d more", len(routes)-named)
	}
	return []string{"on their way to what is shown as now, which is where they come to rest by themselves: " +
		strings.Join(routes[:min(named, len(routes))], ", ") + more}
}

// target is a cluster, or a service in it.
type target struct {
	cluster string
	service federation.ServiceKey
}

// String is how a person would say it.
func (t target) String() string {
	if t.service.Name == "" {
		return t.cluster
	}
	return t.service.String() + " in " + t.cluster
}

// spelled reads CLUSTER or CLUSTER/NAMESPACE/SERVICE, whether it is there or not.
func spelled(text string) (target, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 1 && len(parts) != 3 || slices.Contains(parts, "") {
		return target{}, usageError("%q is neither CLUSTER nor CLUSTER/NAMESPACE/SERVICE", text)
	}
	t := target{cluster: parts[0]}
	if len(parts) == 3 {
		t.service = federation.ServiceKey{Namespace: parts[1], Name: parts[2]}
	}
	return t, nil
}

// parseTarget reads CLUSTER or CLUSTER/NAMESPACE/SERVICE, of which both have to be there: a name that was mistyped would
// be answered by "nothing would change".
func parseTarget(text string, records federation.Records) (target, error) {
	t, err := spelled(text)
	if err != nil {
		return t, err
	}
	var clusters []string
	for _, mc := range records.Members {
		clusters = append(clusters, mc.Name)
	}
	if !slices.Contains(clusters, t.cluster) {
		return t, fmt.Errorf("there is no MemberCluster %s: the hub has %s", t.cluster, orNone(clusters))
	}
	if t.service.Name == "" {
		return t, nil
	}
	var exporters, exported []string
	for _, imp := range records.Imports {
		key := federation.ServiceKey{Namespace: imp.Namespace, Name: imp.Name}
		for _, c := range imp.Status.Clusters {
			if key == t.service {
				exporters = append(exporters, c.Cluster)
			}
			if c.Cluster == t.cluster {
				exported = append(exported, key.String())
			}
		}
	}
	switch {
	case len(exporters) == 0:
		return t, fmt.Errorf("no cluster exports %s: %s exports %s", t.service, t.cluster, orNone(exported))
	case !slices.Contains(exporters, t.cluster):
		return t, fmt.Errorf("%s does not export %s: %s does", t.cluster, t.service, orNone(exporters))
	}
	return t, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (t target) drain(force bool) *v1alpha1.TrafficOverride {
	return &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: "(this plan)"},
		Spec: v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideDrain, Cluster: t.cluster, Imports: t.imports(), Force: force}}
}

// imports is the service as an override names it; none for a whole cluster.
func (t target) imports() []v1alpha1.ObjectReference {
	if t.service.Name == "" {
		return nil
	}
	return []v1alpha1.ObjectReference{{Namespace: t.service.Namespace, Name: t.service.Name}}
}
