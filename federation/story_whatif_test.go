// SPDX-License-Identifier: Apache-2.0

package federation_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// situation is what the plans of a story depend on.
func (s *story) situation(t *testing.T) federation.Situation {
	t.Helper()
	out := federation.Situation{Probes: map[federation.ServiceKey]federation.ProbePlan{}, Guard: federation.Guard{MaxSuspected: federation.DefaultMaxSuspected}}
	for _, r := range s.routes {
		out.Routes = append(out.Routes, s.prepared(t, r))
	}
	for _, g := range s.gateways {
		out.Gateways = append(out.Gateways, s.gateway(g))
	}
	for key := range s.services() {
		if plan := s.probe(t, key); plan.Probe != nil {
			out.Probes[key] = plan
		}
	}
	return out
}

// suppose tells what would be different after each supposition.
func (s *story) suppose(t *testing.T, out *bytes.Buffer) {
	t.Helper()
	is := s.situation(t)
	for _, text := range s.head.Lose {
		writeConsequences(out, "lose "+text, federation.WhatIf(is, is.Without(loss(text))))
	}
	if together := s.head.LoseTogether; len(together) > 0 {
		would := is
		for _, text := range together {
			would = would.Without(loss(text))
		}
		writeConsequences(out, "lose "+strings.Join(together, " and "), federation.WhatIf(is, would))
	}
	for _, text := range s.head.Drain {
		writeConsequences(out, "drain "+text, federation.WhatIf(is, is.Overridden(drain(text))))
	}
}

func loss(text string) federation.Loss {
	cluster, service, _ := strings.Cut(text, "/")
	return federation.Loss{Cluster: cluster, Service: serviceKey(service)}
}

func drain(text string) *v1alpha1.TrafficOverride {
	l := loss(text)
	o := &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: "supposed"},
		Spec: v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideDrain, Cluster: l.Cluster}}
	if l.Service.Name != "" {
		o.Spec.Imports = []v1alpha1.ObjectReference{{Namespace: l.Service.Namespace, Name: l.Service.Name}}
	}
	return o
}

func writeConsequences(out *bytes.Buffer, title string, c federation.Consequences) {
	lines := []string{}
	for _, split := range c.Splits {
		lines = append(lines, fmt.Sprintf("%s rule %s, entered %s", split.Route, split.Rule, strings.Join(split.Entered, ", ")))
		for _, b := range split.Backends {
			carries := fmt.Sprintf("%d %%", b.LoadPercent)
			if b.CapacityPercent != nil {
				carries += fmt.Sprintf(" of %d %%", *b.CapacityPercent)
			}
			lines = append(lines, fmt.Sprintf("  %s %d -> %d carries %s, %s: %s", b.Cluster, b.From, b.To, carries, b.Reason, b.Message))
		}
	}
	for _, a := range c.Addresses {
		lines = append(lines, fmt.Sprintf("%s: %s of %s %s", a.Gateway, a.Address, a.Member, a.Change))
	}
	for _, concern := range c.Concerns {
		lines = append(lines, fmt.Sprintf("%s, %s %s %s: %s", concern.Reason, concern.Kind, concern.Name, concern.Where, concern.Message))
	}
	if !c.Any() {
		lines = append(lines, "nothing changes")
	}
	block(out, title, lines)
}
