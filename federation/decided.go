// SPDX-License-Identifier: Apache-2.0

package federation

import "isthmus.dev/isthmus/api/v1alpha1"

// Decided is what routes last decided of services in clusters.
type Decided map[DecidedFor]Decision

// DecidedFor is an import, namespace/name, in a cluster.
type DecidedFor struct{ Import, Cluster string }

// Decision is what routes last decided of a service in a cluster. The zero value: none speaks of it.
type Decision struct {
	// Verdict that was acted on: the worst, where they differ. Suspected is worse than Unfit, since it takes a probe to be
	// rid of it.
	Verdict Verdict
	// Out is whether any of them leaves it out: it is not fit, or it is and has to wait before it returns.
	Out bool
}

var worse = map[Verdict]int{Fit: 1, Unfit: 2, Suspected: 3}

// Add takes in a plan of a route for one member. The result does not depend on the order of the plans.
func (d Decided) Add(rules []v1alpha1.PlannedRule) {
	for _, rule := range rules {
		for _, b := range rule.Backends {
			verdict := ActedOn(b)
			if verdict == "" {
				continue
			}
			key := DecidedFor{b.Import, b.Cluster}
			was := d[key]
			if worse[verdict] > worse[was.Verdict] {
				was.Verdict = verdict
			}
			was.Out = was.Out || verdict.out() || b.Health != nil && b.Health.Percent == 0
			d[key] = was
		}
	}
}

// Of a service in a cluster.
func (d Decided) Of(key ServiceKey, cluster string) Decision {
	return d[DecidedFor{key.String(), cluster}]
}
