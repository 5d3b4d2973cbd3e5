// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Endpoints is what is remembered of the endpoints of a service in one cluster. The zero value has seen nothing.
type Endpoints struct {
	// ReadyPercent is the share of Peak that is ready, in steps of ten; 0 only where none is.
	ReadyPercent int
	// Peak is the most endpoints that were ready at once, but not more than are wanted.
	Peak int
	// Seen is whether they were ever looked at.
	Seen bool
}

// Step takes in how many endpoints are ready and how many are wanted: those that are not terminating.
//
//	before       | peak
//	not seen     | those that are ready: a hub that starts must not take a scale-up for a fault
//	none ready   | those that are wanted: of a service that comes back, the first pod is not all of it
//	some ready   | max(ready, min(peak, wanted)): new pods that are not ready yet, and those of a surge, change nothing
//
// The share falls when it is a whole step lower than it was said to be, so that a pod more or less says nothing new.
func (e Endpoints) Step(ready, wanted int) Endpoints {
	wanted = max(wanted, ready)
	next := Endpoints{Seen: true, Peak: wanted}
	switch {
	case !e.Seen && ready > 0:
		next.Peak = ready
	case e.ReadyPercent > 0:
		next.Peak = max(ready, min(e.Peak, wanted))
	}
	if ready == 0 {
		return next
	}
	exact := ready * 100 / next.Peak
	next.ReadyPercent = max(10, exact/10*10)
	if next.ReadyPercent < e.ReadyPercent && exact > e.ReadyPercent-10 {
		next.ReadyPercent = e.ReadyPercent
	}
	return next
}

// HealthState is what is remembered of a backend in a cluster, beside its verdict. The zero value was never fit.
type HealthState struct {
	// Phase is empty while it takes its whole part.
	Phase v1alpha1.HealthPhase
	// Percent of its part that it may take, 0 to 100.
	Percent int
	// Since is when it came to take that.
	Since time.Time
	// Well is since when it could take more, while Holding.
	Well time.Time
	// Returns since it was last well for long.
	Returns int
}

// wholePart is the state of who takes its whole part.
var wholePart = HealthState{Percent: 100}

// HealthOf is what a planned backend remembers. One that was acted on as fit and says nothing else took its whole part.
func HealthOf(b v1alpha1.PlannedBackend) HealthState {
	switch h := b.Health; {
	case h != nil:
		s := HealthState{Phase: h.Phase, Percent: int(h.Percent), Since: h.Since.Time, Returns: int(h.Returns)}
		if h.Well != nil {
			s.Well = h.Well.Time
		}
		return s
	case ActedOn(b) == Fit:
		return wholePart
	}
	return HealthState{}
}

// EndpointsOf is what a planned backend remembers of the endpoints.
func EndpointsOf(b v1alpha1.PlannedBackend) Endpoints {
	if b.Health == nil || b.Health.PeakEndpoints == 0 {
		return Endpoints{}
	}
	return Endpoints{ReadyPercent: int(b.Health.ReadyPercent), Peak: int(b.Health.PeakEndpoints), Seen: true}
}

// record is the state as it is kept in a RoutePlan; nil where there is nothing to remember.
func (s HealthState) record(e Endpoints) *v1alpha1.BackendHealth {
	if s.Phase == "" {
		return nil
	}
	h := &v1alpha1.BackendHealth{Phase: s.Phase, Percent: int32(s.Percent), Since: metav1.NewMicroTime(s.Since), Returns: int32(s.Returns)}
	if !s.Well.IsZero() {
		h.Well = new(metav1.NewMicroTime(s.Well))
	}
	if s.Percent < 100 && e.Seen {
		h.ReadyPercent, h.PeakEndpoints = int32(e.ReadyPercent), int32(e.Peak)
	}
	return h
}

// worse orders states of one backend by how little they may take, and then by how young they are.
func (s HealthState) worse(than HealthState) bool {
	if s.Percent != than.Percent {
		return s.Percent < than.Percent
	}
	return s.Since.After(than.Since)
}

// Sight is what is seen of a backend in a cluster.
type Sight struct {
	Finding Finding
	// Fresh is whether that is how it is now: its API server answers.
	Fresh bool
	// ReadyPercent as in Endpoints.
	ReadyPercent int
	// Drained is whether a person's word leaves it out.
	Drained bool
	// Word is when a person last said that it may return; the zero value where nobody did.
	Word time.Time
}

// Recovery is how a backend leaves and returns, with every default filled in.
type Recovery struct {
	minReady, returnReady   int
	manual                  bool
	hold, maxHold, interval time.Duration
	steps                   []int32
}

// RecoveryOf fills in the defaults of what policies say. What the schema would not let through is cut to what it would.
func RecoveryOf(h v1alpha1.Health, f v1alpha1.Failback) Recovery {
	percent := func(p *int32, otherwise int32) int {
		if p == nil {
			p = &otherwise
		}
		return int(min(max(1, *p), 100))
	}
	r := Recovery{minReady: percent(h.MinReadyPercent, 70), returnReady: percent(f.MinReadyPercent, 50),
		manual: f.Mode == v1alpha1.FailbackManual, hold: duration(f.Hold, 15*time.Second), interval: 5 * time.Second,
		steps: []int32{25, 50, 100}}
	r.maxHold = max(r.hold, duration(f.MaxHold, 10*time.Minute))
	if f.Ramp != nil {
		r.interval = duration(f.Ramp.Interval, r.interval)
		if len(f.Ramp.Steps) > 0 {
			r.steps = f.Ramp.Steps
		}
	}
	return r
}

func duration(d *gatewayv1.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	parsed, err := time.ParseDuration(string(*d))
	if err != nil {
		return otherwise
	}
	return min(max(0, parsed), 24*time.Hour)
}

// holdAfter is how long a backend has to be well before it returns.
func (r Recovery) holdAfter(returns int) time.Duration {
	hold := r.hold
	for range returns {
		if hold >= r.maxHold || hold == 0 {
			break
		}
		hold *= 2
	}
	return min(hold, r.maxHold)
}

// could is how much of its part a backend could take, in percent, by what is seen of it.
func (r Recovery) could(see Sight) int {
	if see.Finding.Verdict != Fit {
		return 0
	}
	return r.carries(see)
}

// carries is how much of its part a backend could take by its endpoints alone, in percent.
func (r Recovery) carries(see Sight) int { return min(100, see.ReadyPercent*100/r.minReady) }

// Observe is the state after something was seen at a time. It falls at once to what the backend could take, and rises
// by what Recovery says:
//
//	seen                              | state
//	drained by a person               | Drained, at 0
//	unknown                           | as before
//	could take less than it may       | that much, at once: Out at 0, else Degraded
//	could take more, never took all   | that much, at once
//	could take more, by old knowledge | as before
//	could take more, was drained      | Returning, from the first step
//	could take more                   | Holding until it was well for the hold or a person says so, then Returning
//	Returning for the interval        | the next step
//	took all for maxHold              | its returns are forgotten
func (r Recovery) Observe(was HealthState, see Sight, now time.Time) HealthState {
	was = r.calm(was, now)
	if see.Drained {
		if was.Phase == v1alpha1.HealthDrained {
			return was
		}
		return HealthState{Phase: v1alpha1.HealthDrained, Since: now, Returns: was.Returns}
	}
	if see.Finding.Verdict == Unknown {
		return was
	}
	could, starting := r.could(see), was.Phase == v1alpha1.HealthStarting
	switch {
	case was == HealthState{} && could == 0:
		return was
	case was == HealthState{} || starting && could > was.Percent:
		return begun(could, now)
	case could < was.Percent:
		return HealthState{Percent: could, Since: now, Returns: was.Returns}.settled()
	case could == was.Percent:
		if starting {
			return was
		}
		return was.settled()
	case !see.Fresh && was.Phase != v1alpha1.HealthDrained:
		return was
	}
	return r.rise(was, see, now)
}

// calm forgets the returns of who has taken its whole part for long. A clock that was set back starts each wait again.
func (r Recovery) calm(s HealthState, now time.Time) HealthState {
	waits := s.Phase == v1alpha1.HealthReturning || s.Phase == v1alpha1.HealthFull
	if waits && now.Before(s.Since) {
		s.Since = now
	}
	if now.Before(s.Well) {
		s.Well = now
	}
	if s.Phase == v1alpha1.HealthFull && now.Sub(s.Since) >= r.maxHold {
		return wholePart
	}
	return s
}

// begun is the state of who takes its first share.
func begun(could int, now time.Time) HealthState {
	if could == 100 {
		return wholePart
	}
	return HealthState{Phase: v1alpha1.HealthStarting, Percent: could, Since: now}
}

// settled is the state of who takes as much as it could.
func (s HealthState) settled() HealthState {
	s.Well = time.Time{}
	switch {
	case s.Percent == 0:
		s.Phase = v1alpha1.HealthOut
	case s.Percent < 100:
		s.Phase = v1alpha1.HealthDegraded
	case s.Returns > 0:
		s.Phase = v1alpha1.HealthFull
	default:
		return wholePart
	}
	return s
}

// rise is the state of who could take more than it may.
func (r Recovery) rise(was HealthState, see Sight, now time.Time) HealthState {
	switch {
	case was.Phase == v1alpha1.HealthDrained:
		return r.step(was, see, now)
	case was.Phase == v1alpha1.HealthReturning:
		if now.Sub(was.Since) < r.interval {
			return was
		}
		return r.step(was, see, now)
	case was.Percent == 0 && see.ReadyPercent < r.returnReady:
		was.Phase, was.Well = v1alpha1.HealthOut, time.Time{}
		return was
	case was.Phase != v1alpha1.HealthHolding:
		was.Phase, was.Well = v1alpha1.HealthHolding, now
	}
	said := !see.Word.IsZero() && !see.Word.Before(was.Since.Truncate(time.Second))
	if !said && (r.manual && was.Percent == 0 || now.Sub(was.Well) < r.holdAfter(was.Returns)) {
		return was
	}
	was.Returns++
	return r.step(was, see, now)
}

// step gives the next step of the ramp, as far as the backend could take it.
func (r Recovery) step(s HealthState, see Sight, now time.Time) HealthState {
	could, next := r.could(see), 100
	if i := slices.IndexFunc(r.steps, func(step int32) bool { return int(step) > s.Percent }); i >= 0 && r.interval > 0 {
		next = int(r.steps[i])
	}
	s.Percent, s.Since, s.Well = min(next, could), now, time.Time{}
	if s.Percent == could {
		return s.settled()
	}
	s.Phase = v1alpha1.HealthReturning
	return s
}

// wake is when a state changes by itself, if what is seen stays as it is; the zero value where it does not.
func (r Recovery) wake(s HealthState, see Sight) time.Time {
	// Whatever is not known lets nobody take more.
	fresh := see.Fresh && see.Finding.Verdict != Unknown
	switch {
	case s.Phase == v1alpha1.HealthFull:
		return s.Since.Add(r.maxHold)
	case s.Phase == v1alpha1.HealthReturning && fresh:
		return s.Since.Add(r.interval)
	case s.Phase == v1alpha1.HealthHolding && fresh && (!r.manual || s.Percent > 0):
		return s.Well.Add(r.holdAfter(s.Returns))
	}
	return time.Time{}
}

// released is the state of who serves because nobody else can: it waits for nothing.
func (s HealthState) released(could int, now time.Time) HealthState {
	return HealthState{Percent: could, Since: now, Returns: s.Returns}.settled()
}

// explain says why a fit backend takes less than its part: one of v1alpha1.Weight…, and words.
func (r Recovery) explain(s HealthState, cluster string, readyPercent int) (reason, message string) {
	switch {
	case s.Phase == v1alpha1.HealthDrained:
		return v1alpha1.WeightHolding, "it was drained, and returns once it is seen how it is"
	case s.Phase == v1alpha1.HealthReturning:
		return v1alpha1.WeightReturning, fmt.Sprintf("fit again, and given its part step by step: %d %% of it now", s.Percent)
	case s.Phase == v1alpha1.HealthHolding && s.Percent == 0 && r.manual:
		return v1alpha1.WeightAwaiting, fmt.Sprintf(
			"fit again, and its policy leaves the return to a person: create a TrafficOverride of type Failback with cluster %s", cluster)
	case s.Phase == v1alpha1.HealthHolding && s.Percent == 0:
		return v1alpha1.WeightHolding, fmt.Sprintf("fit again: returns once it has been well for %s", r.holdAfter(s.Returns))
	case s.Phase == v1alpha1.HealthHolding:
		return v1alpha1.WeightHolding, fmt.Sprintf("better again: takes more than %d %% of its part once it has been well for %s",
			s.Percent, r.holdAfter(s.Returns))
	case s.Phase == v1alpha1.HealthOut:
		return v1alpha1.WeightHolding, fmt.Sprintf("%d %% of its endpoints are ready again: returns once %d %% are", readyPercent, r.returnReady)
	}
	return v1alpha1.WeightDegraded, fmt.Sprintf("%d %% of its endpoints are ready, and %d %% are needed for its whole part: takes %d %% of it",
		readyPercent, r.minReady, s.Percent)
}
