// SPDX-License-Identifier: Apache-2.0

// Package faults makes a client fail as networks and API servers do, for tests.
package faults

import (
	"context"
	"errors"
	"path"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Verb is what a call does.
type Verb string

// The verbs.
const (
	Get    Verb = "get"
	List   Verb = "list"
	Create Verb = "create"
	Update Verb = "update"
	Patch  Verb = "patch"
	Apply  Verb = "apply"
	Delete Verb = "delete"
)

// Call is one call of a client.
type Call struct {
	Verb      Verb
	Kind      string
	Namespace string
	Name      string
	// Err is what the caller was told.
	Err error
}

// Rule is a fault. What is empty matches all; Name and Namespace are patterns of path.Match.
type Rule struct {
	Verb      Verb
	Kind      string
	Namespace string
	Name      string

	// Skip lets as many matching calls pass first: Skip 2, Times 1 fails the third.
	Skip int
	// Times is how many calls the fault meets; 0 is all.
	Times int

	// Err is the answer. nil with Hold only delays.
	Err error
	// AfterWrite lets the call through before Err is answered: the write landed, and its answer was lost.
	AfterWrite bool
	// Hold delays the call until the channel is closed, or the caller gives up.
	Hold <-chan struct{}
}

// ErrTimeout is what a caller sees whose request was not answered.
var ErrTimeout error = &timeout{}

type timeout struct{}

func (*timeout) Error() string   { return "injected: no answer in time" }
func (*timeout) Timeout() bool   { return true }
func (*timeout) Temporary() bool { return true }

// ErrUnavailable is the answer of an API server that cannot reach its etcd.
var ErrUnavailable error = apierrors.NewServiceUnavailable("injected: etcd is not there")

// ErrConflict is the answer to a write that comes too late.
var ErrConflict error = apierrors.NewConflict(schema.GroupResource{Resource: "objects"}, "injected", errors.New("the object has been modified"))

// Client wraps a client. Its zero value is of no use: see Wrap. It may be used by many goroutines.
type Client struct {
	client.Client

	mu    sync.Mutex
	rules []*armed
	calls []Call
}

type armed struct {
	Rule
	seen int
}

// Wrap makes a client that behaves until it is given rules.
func Wrap(c client.Client) *Client { return &Client{Client: c} }

// Inject adds a rule. The first rule that matches a call, and is not spent, decides.
func (c *Client) Inject(rule Rule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = append(c.rules, &armed{Rule: rule})
}

// Heal removes all rules. Calls that are held stay held until their channel is closed.
func (c *Client) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = nil
}

// Calls that have ended, oldest first.
func (c *Client) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Call(nil), c.calls...)
}

// Writes are those of Calls that change something.
func (c *Client) Writes() []Call {
	var writes []Call
	for _, call := range c.Calls() {
		if call.Verb != Get && call.Verb != List {
			writes = append(writes, call)
		}
	}
	return writes
}

// Forget empties the record.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

func (c *Client) match(call Call) *Rule {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rule := range c.rules {
		if !rule.matches(call) {
			continue
		}
		rule.seen++
		if rule.seen > rule.Skip && (rule.Times == 0 || rule.seen <= rule.Skip+rule.Times) {
			return &rule.Rule
		}
	}
	return nil
}

func (r *Rule) matches(call Call) bool {
	return (r.Verb == "" || r.Verb == call.Verb) && (r.Kind == "" || r.Kind == call.Kind) &&
		matches(r.Namespace, call.Namespace) && matches(r.Name, call.Name)
}

func matches(pattern, value string) bool {
	ok, err := path.Match(pattern, value)
	return pattern == "" || ok && err == nil
}

func (c *Client) do(ctx context.Context, call Call, real func() error) error {
	call.Err = c.play(ctx, call, real)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
	return call.Err
}

func (c *Client) play(ctx context.Context, call Call, real func() error) error {
	rule := c.match(call)
	if rule == nil {
		return real()
	}
	if rule.AfterWrite {
		if err := real(); err != nil {
			return err
		}
	}
	if rule.Hold != nil {
		select {
		case <-rule.Hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if rule.Err != nil || rule.AfterWrite {
		return rule.Err
	}
	return real()
}

func (c *Client) call(verb Verb, obj runtime.Object, key client.ObjectKey) Call {
	call := Call{Verb: verb, Namespace: key.Namespace, Name: key.Name}
	if gvk, err := c.GroupVersionKindFor(obj); err == nil {
		call.Kind = gvk.Kind
	}
	return call
}

// Get implements client.Client.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return c.do(ctx, c.call(Get, obj, key), func() error { return c.Client.Get(ctx, key, obj, opts...) })
}

// List implements client.Client.
func (c *Client) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.do(ctx, c.call(List, list, client.ObjectKey{}), func() error { return c.Client.List(ctx, list, opts...) })
}

// Create implements client.Client.
func (c *Client) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	return c.do(ctx, c.call(Create, obj, client.ObjectKeyFromObject(obj)), func() error { return c.Client.Create(ctx, obj, opts...) })
}

// Update implements client.Client.
func (c *Client) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return c.do(ctx, c.call(Update, obj, client.ObjectKeyFromObject(obj)), func() error { return c.Client.Update(ctx, obj, opts...) })
}

// Patch implements client.Client.
func (c *Client) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return c.do(ctx, c.call(Patch, obj, client.ObjectKeyFromObject(obj)), func() error { return c.Client.Patch(ctx, obj, patch, opts...) })
}

// Delete implements client.Client.
func (c *Client) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	return c.do(ctx, c.call(Delete, obj, client.ObjectKeyFromObject(obj)), func() error { return c.Client.Delete(ctx, obj, opts...) })
}

// Apply implements client.Client. Only configurations made from unstructured objects have a name here.
func (c *Client) Apply(ctx context.Context, config runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	call := Call{Verb: Apply}
	if named, ok := config.(interface {
		GetKind() string
		GetNamespace() string
		GetName() string
	}); ok {
		call.Kind, call.Namespace, call.Name = named.GetKind(), named.GetNamespace(), named.GetName()
	}
	return c.do(ctx, call, func() error { return c.Client.Apply(ctx, config, opts...) })
}
