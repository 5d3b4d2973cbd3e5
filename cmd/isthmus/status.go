// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func statusCommand(a *access) *cobra.Command {
	var as *output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say on one screen what is not as intended, and why",
		Long: `Say on one screen what is not as intended, and why: the hub's controller, the members, the Gateways' addresses, the routes whose
traffic is not where it was meant to be, the rollouts, and what people have overridden. A line that begins with ! is what to look at.

It ends with 0 where everything is as intended, and with 3 where something is not.`,
		Example: `  isthmus status
  isthmus status -n shop
  isthmus status -o json | jq '.routes[] | select(.asIntended | not)'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := as.check(); err != nil {
				return err
			}
			return a.onRecords(cmd, mayRead, nil, func(ctx context.Context, h *hub, records federation.Records) error {
				s := &screen{records: records, namespace: a.namespace}
				s.controller(h.lease(ctx))
				s.members()
				s.gateways()
				s.routes()
				s.rollouts()
				s.overrides()
				if err := as.print(cmd.OutOrStdout(), s, s.show); err != nil {
					return err
				}
				return s.concerns()
			})
		},
	}
	as = addOutputFlag(cmd, asJSON, asYAML)
	return cmd
}

// screen is what `isthmus status` shows, part by part.
type screen struct {
	records   federation.Records
	namespace string
	parts     []part
}

// part is a table under its head. A line that is not as intended is marked. The columns are named for scripts; they are added and
// never renamed.
type part struct {
	head    string
	columns []string
	lines   []line
}

type line struct {
	wrong bool
	cells []string
}

// shown is how many lines of a part are shown: what does not fit on a screen is not read.
const shown = 15

func (s *screen) add(head string, lines []line, columns ...string) {
	s.parts = append(s.parts, part{head, columns, lines})
}

// wrong is how many lines are not as intended.
func (s *screen) wrong() int {
	wrong := 0
	for _, p := range s.parts {
		for _, l := range p.lines {
			if l.wrong {
				wrong++
			}
		}
	}
	return wrong
}

// concerns is the exit code that goes with the screen.
func (s *screen) concerns() error {
	if s.wrong() > 0 {
		return exitError{errors.New(""), exitConcerns}
	}
	return nil
}

// MarshalJSON writes whether all is as intended, and each part as a list of objects.
func (s *screen) MarshalJSON() ([]byte, error) {
	out := map[string]any{"asIntended": s.wrong() == 0}
	for _, p := range s.parts {
		lines := make([]map[string]any, 0, len(p.lines))
		for _, l := range p.lines {
			cells, columns := map[string]any{"asIntended": !l.wrong}, p.columns
			if len(l.cells) == 1 && len(columns) > 1 {
				columns = []string{"summary"} // of all of them
			}
			for i, cell := range l.cells {
				cells[columns[i]] = cell
			}
			lines = append(lines, cells)
		}
		out[strings.ToLower(p.head)] = lines
	}
	return json.Marshal(out)
}

func (s *screen) show(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, p := range s.parts {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, "  "+p.head)
		slices.SortStableFunc(p.lines, func(a, b line) int { return cmp.Compare(rank(a), rank(b)) })
		for _, l := range p.lines[:min(shown, len(p.lines))] {
			mark := "  "
			if l.wrong {
				mark = "! "
			}
			fmt.Fprintln(w, mark+strings.Join(l.cells, "\t"))
		}
		if more := len(p.lines) - shown; more > 0 {
			fmt.Fprintf(w, "  and %d more: give a --namespace\n", more)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if s.wrong() == 0 {
		fmt.Fprintln(out, "\nEverything is as intended.")
		return nil
	}
	fmt.Fprintln(out, "\nNot as intended: the lines with !. Of a route, isthmus why NAMESPACE/ROUTE tells more.")
	return nil
}

// rank puts first what is to be seen first.
func rank(l line) int {
	if l.wrong {
		return 0
	}
	return 1
}

// leaseName is the leader's lease in the hub's namespace of Isthmus.
const leaseName = "isthmus-hub"

// silence is after how long without a renewal the hub's controller is taken to be away: a lease is renewed every few
// seconds, and this machine's clock may be off by some more.
const silence = time.Minute

// lease says what is known of the hub's controller, without which all else is what once was.
func (h *hub) lease(ctx context.Context) (l *coordinationv1.Lease, err error) {
	l = &coordinationv1.Lease{}
	return l, h.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: leaseName}, l)
}

func (s *screen) controller(lease *coordinationv1.Lease, err error) {
	away := func(words string) line {
		return line{true, []string{words + ": members go on as they are, nothing moves by itself, and what follows is what was last recorded"}}
	}
	l := line{}
	switch {
	case apierrors.IsNotFound(err):
		l = away("it has no lease in " + v1alpha1.SystemNamespace + ", so it has never run, or runs with --leader-elect=false")
	case err != nil:
		l.cells = []string{"not known, since its lease cannot be read (" + string(apierrors.ReasonForError(err)) + ")"}
	case lease.Spec.RenewTime == nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "":
		l = away("nobody leads")
	case s.records.Now.Sub(lease.Spec.RenewTime.Time) > silence:
		l = away("nobody has renewed its lease since " + since(metav1.Time{Time: lease.Spec.RenewTime.Time}, s.records.Now))
	default:
		l.cells = []string{"leads: " + *lease.Spec.HolderIdentity}
	}
	s.add("CONTROLLER", []line{l}, "state")
}

func (s *screen) members() {
	var lines []line
	for i := range s.records.Members {
		mc := &s.records.Members[i]
		l := line{cells: []string{mc.Name, "connected"}}
		for _, kind := range []string{v1alpha1.MemberMeshReady, v1alpha1.MemberSynced, v1alpha1.MemberConnected} {
			c := meta.FindStatusCondition(mc.Status.Conditions, kind)
			switch connected := kind == v1alpha1.MemberConnected; {
			case c == nil && connected:
				l.wrong, l.cells[1] = true, "the hub has said nothing of it yet"
			case c != nil && (c.Status == metav1.ConditionFalse || connected && c.Status != metav1.ConditionTrue):
				l.wrong, l.cells[1] = true, stated(*c, s.records.Now)
			}
		}
		verdict, unwell := s.verdict(mc.Name)
		l.wrong, l.cells = l.wrong || unwell, append(l.cells, verdict)
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		lines = []line{{true, []string{"there is no MemberCluster: no traffic is federated"}}}
	}
	s.add("MEMBERS", lines, "member", "connection", "services")
}

// stated is a condition in words.
func stated(c metav1.Condition, now time.Time) string {
	words := c.Reason
	if at := ago(c.LastTransitionTime, now); at != "" {
		words += ", " + at
	}
	return words + ": " + oneLine(c.Message)
}

// verdict on a member in words, from what was decided of each service in it.
func (s *screen) verdict(member string) (words string, unwell bool) {
	all, ill := map[string]bool{}, map[string]string{}
	for _, plan := range s.records.Plans {
		for _, rule := range plan.Status.Rules {
			for _, b := range rule.Backends {
				if b.Cluster != member || b.Import == "" {
					continue
				}
				all[b.Import] = true
				if b.Verdict != string(federation.Fit) && b.Verdict != "" {
					ill[b.Import] = b.Import + " is " + b.Verdict + " (" + oneLine(cmp.Or(b.Message, b.Reason)) + ")"
				}
			}
		}
	}
	for _, o := range overridesInForce(s.records) {
		if o.Spec.Type == v1alpha1.OverrideDrain && o.Spec.Cluster == member && len(o.Spec.Imports) == 0 {
			words = "drained by TrafficOverride " + o.Name + "; "
		}
	}
	switch {
	case len(all) == 0:
		return words + "no route sends to it", false
	case len(ill) == 0:
		return words + fmt.Sprintf("every service that routes send to is fit (%d)", len(all)), false
	}
	var list []string
	for _, text := range ill {
		list = append(list, text)
	}
	return words + some(list, 2), true
}

// some names a few of many.
func some(list []string, few int) string {
	slices.Sort(list)
	if more := len(list) - few; more > 0 {
		return strings.Join(list[:few], "; ") + fmt.Sprintf("; and %d more", more)
	}
	return strings.Join(list, "; ")
}

func (s *screen) gateways() {
	var lines []line
	for i := range s.records.Gateways {
		g := &s.records.Gateways[i]
		if s.elsewhere(g.Namespace) || !s.records.Ours(g) {
			continue
		}
		var addresses []string
		for _, a := range g.Status.Addresses {
			addresses = append(addresses, a.Value)
		}
		l := line{len(addresses) == 0, []string{g.Namespace + "/" + g.Name, cmp.Or(strings.Join(addresses, ", "), "no address: nobody can enter by it")}}
		if c := meta.FindStatusCondition(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)); c != nil && c.Status == metav1.ConditionFalse {
			l.wrong, l.cells = true, append(l.cells, stated(*c, s.records.Now))
		}
		lines = append(lines, l)
	}
	if len(lines) > 0 {
		s.add("GATEWAYS", lines, "gateway", "addresses", "programmed")
	}
}

func (s *screen) elsewhere(namespace string) bool {
	return s.namespace != "" && namespace != s.namespace
}

// routes shows those that are not as intended, and counts the others.
func (s *screen) routes() {
	var lines []line
	count := 0
	for i := range s.records.Routes {
		route := &s.records.Routes[i]
		conditions := routeConditions(route)
		if s.elsewhere(route.Namespace) || len(conditions) == 0 {
			continue
		}
		count++
		for _, c := range conditions {
			if astray(c) {
				lines = append(lines, line{true, []string{route.Namespace + "/" + route.Name, c.Type, stated(c, s.records.Now)}})
			}
		}
	}
	switch {
	case count == 0:
		lines = []line{{cells: []string{"Isthmus serves no route here"}}}
	case len(lines) == 0:
		lines = []line{{cells: []string{fmt.Sprintf("every share is where its intent says (%d)", count)}}}
	}
	s.add("ROUTES", lines, "route", "condition", "state")
}

// astray tells whether a condition of a route says that something is not as intended. That a member cannot be reached makes
// Programmed Unknown, of every route: that is said once, of the member.
func astray(c metav1.Condition) bool {
	switch c.Type {
	case v1alpha1.RouteTrafficShifted:
		return c.Status != metav1.ConditionFalse
	case v1alpha1.RouteProbed:
		return c.Status != metav1.ConditionTrue
	}
	return c.Status == metav1.ConditionFalse
}

// rollouts shows those that have not ended. One that goes its way, or waits for a person as it was told to, is as intended.
func (s *screen) rollouts() {
	var lines []line
	for i := range s.records.Rollouts {
		r := &s.records.Rollouts[i]
		if s.elsewhere(r.Namespace) {
			continue
		}
		stuck := r.Status.Phase == v1alpha1.RolloutDegraded || r.Status.Phase == v1alpha1.RolloutPending
		phase := phaseOf(r)
		if at := ago(sinceOf(r), s.records.Now); at != "" {
			phase += ", " + at
		}
		lines = append(lines, line{stuck || federation.Undecided(r.Status), []string{r.Namespace + "/" + r.Name, "of " + r.Spec.Route.Name, phase,
			cmp.Or(weightsOf(r), "-"), oneLine(r.Status.Message)}})
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.cells[0], b.cells[0]) })
	if len(lines) > 0 {
		s.add("ROLLOUTS", lines, "rollout", "route", "phase", "clusters", "message")
	}
}

// overrides shows those that have not expired. What a person overrides is not left to policies and health, so it is not as
// intended until it is ended; a failback only lets them go on.
func (s *screen) overrides() {
	var lines []line
	for _, o := range overridesInForce(s.records) {
		state, note := standing(o, s.records.Now)
		if note != "" {
			state += ": " + note
		}
		lines = append(lines, line{o.Spec.Type != v1alpha1.OverrideFailback, []string{string(o.Spec.Type) + " of " + about(o.Spec),
			oneLine(signed(o.Spec)), "ends " + expiry(o.Spec.Expires, s.records.Now), "in force: " + oneLine(state)}})
	}
	if len(lines) == 0 {
		lines = []line{{cells: []string{"nobody overrides anything"}}}
	}
	s.add("OVERRIDES", lines, "override", "signed", "ends", "inForce")
}
