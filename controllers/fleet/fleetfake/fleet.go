// SPDX-License-Identifier: Apache-2.0

// Package fleetfake is a fleet in memory, for the tests of what uses one: states are set, caches are filled by
// hand, and what is submitted is recorded.
package fleetfake

import (
	"context"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// Fleet has the methods of a fleet.Fleet that its users call.
type Fleet struct {
	scheme *runtime.Scheme

	mu       sync.Mutex
	members  map[string]*Member
	handlers fleet.Handlers
	refusals map[string]error
	ensured  map[string][]byte
}

// New makes a fleet without members.
func New(scheme *runtime.Scheme, handlers fleet.Handlers) *Fleet {
	return &Fleet{scheme: scheme, handlers: handlers, members: map[string]*Member{}, refusals: map[string]error{}, ensured: map[string][]byte{}}
}

// Add makes a member that is connected and synced, with the given contents.
func (f *Fleet) Add(name string, contents ...client.Object) *Member {
	return f.add(name, fleet.State{
		Phase: fleet.Connected, Synced: true, Version: "v1.36.3",
		Reason: v1alpha1.ReasonConnected, Message: "the API server answers",
	}, contents...)
}

func (f *Fleet) add(name string, state fleet.State, contents ...client.Object) *Member {
	m := &Member{
		name: name, fleet: f, outcomes: map[federation.Owner]error{}, wishes: map[federation.Owner]fleet.Desired{},
		client: fake.NewClientBuilder().WithScheme(f.scheme).WithObjects(contents...).Build(),
		state:  state,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[name] = m
	return m
}

// Refuse makes Ensure answer so for a member; nil ends that.
func (f *Fleet) Refuse(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusals[name] = err
}

// Ensure records the kubeconfig, and adds an empty member that is still connecting if there is none.
func (f *Fleet) Ensure(name string, kubeconfig []byte) error {
	f.mu.Lock()
	err, known := f.refusals[name], f.members[name] != nil
	if err == nil {
		f.ensured[name] = slices.Clone(kubeconfig)
	}
	f.mu.Unlock()
	if err == nil && !known {
		f.add(name, fleet.State{
			Phase: fleet.Connecting, Reason: v1alpha1.ReasonConnecting, Message: "waiting for the API server's first answer",
		})
	}
	return err
}

// Kubeconfig is what Ensure was last given for a member.
func (f *Fleet) Kubeconfig(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ensured[name]
}

// Remove forgets a member.
func (f *Fleet) Remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.members, name)
	delete(f.ensured, name)
}

// Member by name.
func (f *Fleet) Member(name string) (fleet.Member, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.members[name]
	if !ok {
		return nil, false
	}
	return m, true
}

// Members sorted by name.
func (f *Fleet) Members() []fleet.Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []fleet.Member{}
	for _, m := range f.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b fleet.Member) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

// Member is a fleet.Member whose every answer is set.
type Member struct {
	name   string
	fleet  *Fleet
	client client.Client

	mu       sync.Mutex
	state    fleet.State
	submits  []fleet.Desired
	wishes   map[federation.Owner]fleet.Desired
	outcomes map[federation.Owner]error
}

var _ fleet.Member = (*Member)(nil)

// Name implements fleet.Member.
func (m *Member) Name() string { return m.name }

// State implements fleet.Member.
func (m *Member) State() fleet.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// SetState changes the state, and tells the handler.
func (m *Member) SetState(state fleet.State) {
	m.mu.Lock()
	m.state = state
	m.mu.Unlock()
	if m.fleet.handlers.State != nil {
		m.fleet.handlers.State(m.name)
	}
}

// Client changes what Reader reads; it tells no handler: see Changed.
func (m *Member) Client() client.Client { return m.client }

// Changed tells the handler of a change in the member.
func (m *Member) Changed(old, new client.Object) {
	if m.fleet.handlers.Object != nil {
		m.fleet.handlers.Object(m.name, old, new)
	}
}

// Reader implements fleet.Member. Kinds in State.Missing answer as in a member that lacks them.
func (m *Member) Reader() client.Reader { return reader{m} }

// Submit implements fleet.Member: the wish is recorded, and its outcome is pending unless SetOutcome said
// otherwise for this owner.
func (m *Member) Submit(d fleet.Desired) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.submits = append(m.submits, d)
	m.wishes[d.Owner] = d
	if _, set := m.outcomes[d.Owner]; !set {
		m.outcomes[d.Owner] = fleet.ErrPending
	}
}

// Outcome implements fleet.Member.
func (m *Member) Outcome(owner federation.Owner) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err, ok := m.outcomes[owner]; ok {
		return err
	}
	return fleet.ErrNoWish
}

// SetOutcome of an owner's wishes, and tells the handler.
func (m *Member) SetOutcome(owner federation.Owner, err error) {
	m.mu.Lock()
	m.outcomes[owner] = err
	m.mu.Unlock()
	if m.fleet.handlers.Outcome != nil {
		m.fleet.handlers.Outcome(m.name, owner)
	}
}

// Submits are all wishes, oldest first.
func (m *Member) Submits() []fleet.Desired {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.submits)
}

// Wish is the newest of an owner.
func (m *Member) Wish(owner federation.Owner) (fleet.Desired, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.wishes[owner]
	return d, ok
}

type reader struct{ member *Member }

// Get implements client.Reader.
func (r reader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if err := r.missing(obj); err != nil {
		return err
	}
	return r.member.client.Get(ctx, key, obj, opts...)
}

// List implements client.Reader.
func (r reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := r.missing(list); err != nil {
		return err
	}
	return r.member.client.List(ctx, list, opts...)
}

func (r reader) missing(obj runtime.Object) error {
	gvk, err := apiutil.GVKForObject(obj, r.member.fleet.scheme)
	if err != nil {
		return err
	}
	gk := schema.GroupKind{Group: gvk.Group, Kind: strings.TrimSuffix(gvk.Kind, "List")}
	if slices.Contains(r.member.State().Missing, gk.String()) {
		return &meta.NoKindMatchError{GroupKind: gk, SearchedVersions: []string{gvk.Version}}
	}
	return nil
}
