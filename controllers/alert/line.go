// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Time between two attempts: it doubles from the first to the last.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// line is what waits for one web hook, the oldest first. One goroutine works on it while anything waits.
type line struct {
	waiting []raised
	working bool
	failing bool
}

func (s *Sender) enqueue(ctx context.Context, name string, a raised) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[name]
	if l == nil {
		l = &line{}
		s.lines[name] = l
	}
	l.waiting = append(l.waiting, a)
	if len(l.waiting) > maxWaiting {
		l.waiting = l.waiting[1:]
		s.metrics.count(name, resultDropped)
	}
	s.metrics.depth(name, len(l.waiting))
	if !l.working {
		l.working = true
		s.working.Go(func() { s.work(ctx, name, l) })
	}
}

// work delivers what waits, one after the other, and repeats what was not taken.
func (s *Sender) work(ctx context.Context, name string, l *line) {
	for pause := firstPause; ; {
		a, more := s.head(l)
		if !more {
			return
		}
		err := s.deliver(ctx, name, a)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.done(name, l, a, resultDelivered)
			s.say(ctx, name, l, nil)
			pause = firstPause
			continue
		case errors.Is(err, errGone):
			s.drop(name)
			return
		case errors.Is(err, errRefused):
			s.done(name, l, a, resultRefused)
			s.say(ctx, name, l, err)
			continue
		case time.Since(a.at) > maxAge:
			s.done(name, l, a, resultDropped)
			continue
		}
		s.say(ctx, name, l, err)
		wait := pause
		if later := (laterError{}); errors.As(err, &later) {
			wait = max(wait, later.after)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		pause = min(2*pause, lastPause)
	}
}

// deliver makes one attempt, at the address that the Secret holds now.
func (s *Sender) deliver(ctx context.Context, name string, a raised) error {
	secret := &corev1.Secret{}
	err := s.Secrets.Get(ctx, types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: name}, secret)
	if apierrors.IsNotFound(err) || err == nil && !IsWebhook(secret) {
		return errGone
	}
	if err != nil {
		return err
	}
	t, err := targetOf(secret)
	if err != nil {
		return err
	}
	body, contentType, err := message(t, a)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	return s.post(ctx, t, body, contentType)
}

// say makes an Event on the web hook's Secret when messages cease to arrive, and when they arrive again.
func (s *Sender) say(ctx context.Context, name string, l *line, err error) {
	s.mu.Lock()
	changed := l.failing != (err != nil)
	l.failing = err != nil
	s.mu.Unlock()
	secret := &corev1.Secret{}
	if !changed || s.Secrets.Get(ctx, types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: name}, secret) != nil {
		return
	}
	if err != nil {
		s.Log.Error(err, "a web hook was not reached", "webhook", name)
		s.Events.Eventf(secret, nil, corev1.EventTypeWarning, v1alpha1.ReasonWebhookFailed, "Alert", "%v", err)
		return
	}
	s.Events.Eventf(secret, nil, corev1.EventTypeNormal, v1alpha1.ReasonWebhookDelivered, "Alert", "messages arrive again")
}

// head is the alert that is next; false where none is, and the goroutine has to end.
func (s *Sender) head(l *line) (raised, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.working = len(l.waiting) > 0; !l.working {
		return raised{}, false
	}
	return l.waiting[0], true
}

// done takes an alert out of the line, if it was not given up meanwhile.
func (s *Sender) done(name string, l *line, a raised, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.waiting) > 0 && l.waiting[0].at.Equal(a.at) && l.waiting[0].Summary == a.Summary {
		l.waiting = l.waiting[1:]
		s.metrics.count(name, result)
		s.metrics.depth(name, len(l.waiting))
	}
}

// drop ends the line of a web hook that is no more.
func (s *Sender) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lines, name)
	s.metrics.forget(name)
}
